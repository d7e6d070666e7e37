/* Vectors in the compiler's extensions, as wide as the instruction set has them: the same source for all. */
#include <stdint.h>
#include <string.h>

#ifdef __AVX512F__
#define VECTOR_BYTES 64
#elif defined __AVX__
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
#define LANES (VECTOR_BYTES / 4)

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t integers __attribute__((vector_size(4 * LANES)));
typedef uint32_t bits __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));
typedef uint8_t bytes __attribute__((vector_size(LANES)));

#define INLINE static inline __attribute__((always_inline))

INLINE floats load_floats(const float *from) {
    floats values;
    memcpy(&values, from, sizeof values);
    return values;
}

/* mask (all bits or none) ? a : b */
INLINE integers choose(integers mask, integers a, integers b) { return (mask & a) | (~mask & b); }

INLINE void store_bf16(uint16_t *to, floats values) { /* rounded to nearest, ties to even; NaN stays NaN */
    bits raw = (bits)values, rounded = raw + 0x7fff + ((raw >> 16) & 1);
    bits chosen = (bits)choose(values != values, (integers)(raw | 0x400000), (integers)rounded) >> 16;
    halves half = __builtin_convertvector(chosen, halves);
    memcpy(to, &half, sizeof half);
}
