/* Shared by the kernels: conversions between bf16 and fp32, and products of bf16 matrices. */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "parts.h"

#define INLINE static inline __attribute__((always_inline))

#define FP32_LANES 16 /* values in a register */
#define BF16_LANES 32

INLINE __m512 to_fp32(__m256i values) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(values), 16)); }

typedef struct {
    __m512 low, high;
} floats; /* of 32 channels */

INLINE floats zeros(void) { return (floats){_mm512_setzero_ps(), _mm512_setzero_ps()}; }

INLINE __m512i to_bf16(floats values) { return (__m512i)_mm512_cvtne2ps_pbh(values.high, values.low); }

/* two bf16 values, in each of the 16 lanes */
INLINE __m512bh broadcast_pair(const uint16_t *pair) {
    int32_t both;
    memcpy(&both, pair, sizeof both);
    return (__m512bh)_mm512_set1_epi32(both);
}

/* A product of bf16 matrices is computed in blocks of BLOCK_ROWS rows by 32 columns, which stay in registers. Values along the inner
   dimension come in pairs: a pair of `a` for each row, a pair of `b` for each column. */
#define BLOCK_ROWS 8

INLINE void load_block(const float *from, int64_t stride, floats block[BLOCK_ROWS]) {
#pragma GCC unroll 8
    for (int r = 0; r < BLOCK_ROWS; r++, from += stride) block[r] = (floats){_mm512_loadu_ps(from), _mm512_loadu_ps(from + 16)};
}

INLINE void store_block(const floats block[BLOCK_ROWS], int64_t stride, float *to) {
#pragma GCC unroll 8
    for (int r = 0; r < BLOCK_ROWS; r++) {
        _mm512_storeu_ps(to + r * stride, block[r].low);
        _mm512_storeu_ps(to + r * stride + 16, block[r].high);
    }
}

/* block += a' * b */
INLINE void multiply_add(int64_t pairs, const uint32_t *a, int64_t a_stride, const uint32_t *b, int64_t b_stride,
                         floats block[BLOCK_ROWS]) {
    for (int64_t pair = 0; pair < pairs; pair++, a += a_stride, b += b_stride) {
        __m512bh low = (__m512bh)_mm512_loadu_si512(b), high = (__m512bh)_mm512_loadu_si512(b + 16);
#pragma GCC unroll 8
        for (int r = 0; r < BLOCK_ROWS; r++) {
            __m512bh both = (__m512bh)_mm512_set1_epi32(a[r]);
            block[r].low = _mm512_dpbf16_ps(block[r].low, both, low);
            block[r].high = _mm512_dpbf16_ps(block[r].high, both, high);
        }
    }
}
