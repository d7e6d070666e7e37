/* What the kernels share: numbers of bf16 as fp32, and back. */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

INLINE __m512 widened(__m256i values) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(values), 16)); }

typedef struct {
    __m512 low, high;
} floats; /* of 32 channels */

INLINE floats zero(void) { return (floats){_mm512_setzero_ps(), _mm512_setzero_ps()}; }

INLINE __m512i rounded(floats values) { return (__m512i)_mm512_cvtne2ps_pbh(values.high, values.low); }

/* two numbers, in each of sixteen places */
INLINE __m512bh pair_everywhere(const uint16_t *pair) {
    int32_t both;
    memcpy(&both, pair, sizeof both);
    return (__m512bh)_mm512_set1_epi32(both);
}

/* sixteen pairs of bf16, each a number in the lower half and one in the upper */
INLINE __m512i paired(__m512 lower, __m512 upper) {
    __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(lower));
    __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(upper));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}
