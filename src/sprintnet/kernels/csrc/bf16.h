/* What the kernels share: numbers of bf16 as fp32 and back, and sums of their products. */
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

/* Sums of products of bf16 pairs, in tiles of TILE_ROWS rows by 32 columns that stay in registers: a pair of `a` for each row, a pair
   of `b` for each column. */
#define TILE_ROWS 8

INLINE void read_tile(const float *from, int64_t stride, floats tile[TILE_ROWS]) {
#pragma GCC unroll 8
    for (int c = 0; c < TILE_ROWS; c++, from += stride) tile[c] = (floats){_mm512_loadu_ps(from), _mm512_loadu_ps(from + 16)};
}

INLINE void write_tile(const floats tile[TILE_ROWS], int64_t stride, float *to) {
#pragma GCC unroll 8
    for (int c = 0; c < TILE_ROWS; c++) {
        _mm512_storeu_ps(to + c * stride, tile[c].low);
        _mm512_storeu_ps(to + c * stride + 16, tile[c].high);
    }
}

INLINE void add_products(int64_t pairs, const uint32_t *a, int64_t a_stride, const uint32_t *b, int64_t b_stride,
                         floats tile[TILE_ROWS]) {
    for (int64_t pair = 0; pair < pairs; pair++, a += a_stride, b += b_stride) {
        __m512bh low = (__m512bh)_mm512_loadu_si512(b), high = (__m512bh)_mm512_loadu_si512(b + 16);
#pragma GCC unroll 8
        for (int c = 0; c < TILE_ROWS; c++) {
            __m512bh both = (__m512bh)_mm512_set1_epi32(a[c]);
            tile[c].low = _mm512_dpbf16_ps(tile[c].low, both, low);
            tile[c].high = _mm512_dpbf16_ps(tile[c].high, both, high);
        }
    }
}
