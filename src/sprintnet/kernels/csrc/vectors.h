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

/* 2^exponent, to 3e-7 of it; of -126 or less 2^-126, of 126 or more 2^126 */
INLINE floats power_of_2(floats exponent) {
    const floats limit = (floats){0} + 126;
    exponent = (floats)choose(exponent > limit, (integers)limit, (integers)exponent);
    exponent = (floats)choose(exponent < -limit, (integers)-limit, (integers)exponent);
    floats integer = (exponent + 12582912.0f) - 12582912.0f, fraction = exponent - integer; /* rounded: 3 * 2^22 has no bits below 1 */
    floats power = (floats){0} + 1.54035304e-4f; /* Taylor series of 2^fraction, |fraction| <= 1/2 */
    power = power * fraction + 1.33335581e-3f;
    power = power * fraction + 9.61812911e-3f;
    power = power * fraction + 5.55041087e-2f;
    power = power * fraction + 2.40226507e-1f;
    power = power * fraction + 6.93147181e-1f;
    power = power * fraction + 1;
    return power * (floats)((__builtin_convertvector(integer, integers) + 127) << 23);
}

INLINE floats load_bf16(const uint16_t *from) {
    halves half;
    memcpy(&half, from, sizeof half);
    return (floats)(__builtin_convertvector(half, bits) << 16);
}

INLINE uint16_t to_bf16(float value) { /* as store_bf16 */
    uint32_t raw;
    memcpy(&raw, &value, sizeof raw);
    return (value != value ? raw | 0x400000 : raw + 0x7fff + (raw >> 16 & 1)) >> 16;
}

INLINE void store_bf16(uint16_t *to, floats values) { /* rounded to nearest, ties to even; NaN stays NaN */
    bits raw = (bits)values, rounded = raw + 0x7fff + ((raw >> 16) & 1);
    bits chosen = (bits)choose(values != values, (integers)(raw | 0x400000), (integers)rounded) >> 16;
    halves half = __builtin_convertvector(chosen, halves);
    memcpy(to, &half, sizeof half);
}

/* The maximum of four pixels and its index, the first of equal ones; NaN is the largest. */
INLINE floats maximum(const float *const pixels[4], uint8_t *argmax) {
    floats best = load_floats(pixels[0]);
    integers places = {0};
    for (int place = 1; place < 4; place++) {
        floats values = load_floats(pixels[place]);
        integers is_greater = (values > best) | (values != values);
        best = (floats)choose(is_greater, (integers)values, (integers)best);
        places = choose(is_greater, (integers){0} + place, places);
    }
    bytes narrow = __builtin_convertvector(places, bytes);
    memcpy(argmax, &narrow, sizeof narrow);
    return best;
}
