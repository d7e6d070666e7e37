/* Shared by the kernels: bf16 to fp32 and back, and sums of products. */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

INLINE __m512 to_float(__m256i values) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(values), 16)); }

typedef struct {
    __m512 low, high;
} float32x32; /* of 32 channels */

INLINE float32x32 zero(void) { return (float32x32){_mm512_setzero_ps(), _mm512_setzero_ps()}; }

INLINE __m512i to_bf16(float32x32 values) { return (__m512i)_mm512_cvtne2ps_pbh(values.high, values.low); }

/* two bf16 numbers, repeated sixteen times */
INLINE __m512bh broadcast_pair(const uint16_t *pair) {
    int32_t value;
    memcpy(&value, pair, sizeof value);
    return (__m512bh)_mm512_set1_epi32(value);
}

/* Sums of products of bf16 pairs in tiles of TILE_ROWS rows by 32 columns that stay in registers: a pair of `a` for each row, a pair
   of `b` for each column. */
#define TILE_ROWS 8

INLINE void read_tile(const float *from, int64_t stride, float32x32 tile[TILE_ROWS]) {
#pragma GCC unroll 8
    for (int c = 0; c < TILE_ROWS; c++, from += stride) tile[c] = (float32x32){_mm512_loadu_ps(from), _mm512_loadu_ps(from + 16)};
}

INLINE void write_tile(const float32x32 tile[TILE_ROWS], int64_t stride, float *to) {
#pragma GCC unroll 8
    for (int c = 0; c < TILE_ROWS; c++) {
        _mm512_storeu_ps(to + c * stride, tile[c].low);
        _mm512_storeu_ps(to + c * stride + 16, tile[c].high);
    }
}

INLINE void add_products(int64_t pairs, const uint32_t *a, int64_t a_stride, const uint32_t *b, int64_t b_stride,
                         float32x32 tile[TILE_ROWS]) {
    for (int64_t pair = 0; pair < pairs; pair++, a += a_stride, b += b_stride) {
        __m512bh low = (__m512bh)_mm512_loadu_si512(b), high = (__m512bh)_mm512_loadu_si512(b + 16);
#pragma GCC unroll 8
        for (int c = 0; c < TILE_ROWS; c++) {
            __m512bh value = (__m512bh)_mm512_set1_epi32(a[c]);
            tile[c].low = _mm512_dpbf16_ps(tile[c].low, value, low);
            tile[c].high = _mm512_dpbf16_ps(tile[c].high, value, high);
        }
    }
}
