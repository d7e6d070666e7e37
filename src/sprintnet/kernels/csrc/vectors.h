/* Vectors of 16 values in the compiler's extensions: the same source for every instruction set. */
#include <stdint.h>
#include <string.h>

#define LANES 16

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
