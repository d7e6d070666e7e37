/* The Winograd convolution of winograd.py in bf16, a group of images at a time, so that the data between its three steps stay in a core's
   own cache: the input transform, a matrix product for each tile element, the output transform. The gradient w.r.t. the input takes the
   same steps with both transforms transposed; weight_gradient computes that of the transformed weight. */
#include "bf16.h"

#define GEMM_ROWS 12 /* whose sums fill the registers, with BF16_LANES columns */
#define ROW_PAIRS 64 /* that weight_gradient interleaves at once */
#define CHANNELS BF16_LANES
#define FENCE _mm_sfence()

typedef uint16_t element;

INLINE floats load(const uint16_t *from) {
    __m512i values = _mm512_loadu_si512(from);
    return (floats){to_fp32(_mm512_castsi512_si256(values)), to_fp32(_mm512_extracti64x4_epi64(values, 1))};
}

INLINE floats plus(floats sum, float factor, floats values) {
    __m512 factors = _mm512_set1_ps(factor);
    return (floats){_mm512_fmadd_ps(factors, values.low, sum.low), _mm512_fmadd_ps(factors, values.high, sum.high)};
}

INLINE void store(element *to, floats values) { _mm512_store_si512((void *)to, to_bf16(values)); }

/* without polluting the caches */
INLINE void stream(element *to, floats values) { _mm512_stream_si512((void *)to, to_bf16(values)); }

#include "winograd_tiles.h"

/* output = input * matrix, bf16: input is (length, inner), output (length, outer), the length a multiple of GEMM_ROWS. The matrix is in
   panels of BF16_LANES columns, in each panel ordered by pair of rows, so that one load holds two rows of 16 columns. */
static void multiply(int64_t length, int64_t inner, int64_t outer, const uint16_t *input, const uint16_t *matrix, uint16_t *output) {
    for (int panel = 0; panel < outer; panel += BF16_LANES, matrix += inner * BF16_LANES)
        for (int64_t row = 0; row < length; row += GEMM_ROWS) {
            const uint16_t *from = input + row * inner;
            floats sums[GEMM_ROWS];
#pragma GCC unroll 12
            for (int r = 0; r < GEMM_ROWS; r++) sums[r] = zeros();
            for (int i = 0; i < inner; i += 2) {
                __m512bh low = (__m512bh)_mm512_load_si512(matrix + i * BF16_LANES);
                __m512bh high = (__m512bh)_mm512_load_si512(matrix + (i + 1) * BF16_LANES);
#pragma GCC unroll 12
                for (int r = 0; r < GEMM_ROWS; r++) {
                    __m512bh pair = broadcast_pair(from + r * inner + i);
                    sums[r].low = _mm512_dpbf16_ps(sums[r].low, pair, low);
                    sums[r].high = _mm512_dpbf16_ps(sums[r].high, pair, high);
                }
            }
#pragma GCC unroll 12
            for (int r = 0; r < GEMM_ROWS; r++) _mm512_store_si512((void *)(output + (row + r) * outer + panel), to_bf16(sums[r]));
        }
}

/* Interleaves two rows into pairs: a, b -> a0 b0 a1 b1 ... */
INLINE void interleave(int64_t size, const uint16_t *a, const uint16_t *b, uint32_t *pairs) {
    uint16_t places[2 * BF16_LANES];
    for (int i = 0; i < 2 * BF16_LANES; i++) places[i] = i / 2 + i % 2 * BF16_LANES; /* in two registers of BF16_LANES */
    __m512i low = _mm512_loadu_si512(places), high = _mm512_loadu_si512(places + BF16_LANES);
    for (int i = 0; i < size; i += BF16_LANES) {
        __m512i from_a = _mm512_load_si512(a + i), from_b = _mm512_load_si512(b + i);
        _mm512_store_si512((void *)(pairs + i), _mm512_permutex2var_epi16(from_a, low, from_b));
        _mm512_store_si512((void *)(pairs + i + BF16_LANES / 2), _mm512_permutex2var_epi16(from_a, high, from_b));
    }
}

/* sums (elements, inner, outer) = a' * b for each element: a (elements, rows, inner) and b (elements, rows, outer) are bf16, the number of
   rows even. */
void weight_gradient(int64_t elements, int64_t rows, int64_t inner, int64_t outer, const uint16_t *a, const uint16_t *b, float *sums) {
#pragma omp parallel for schedule(static)
    for (int64_t element = 0; element < elements; element++) {
        uint32_t a_pairs[ROW_PAIRS][inner] __attribute__((aligned(64))), b_pairs[ROW_PAIRS][outer] __attribute__((aligned(64)));
        float *sum = sums + element * inner * outer;
        memset(sum, 0, sizeof(float) * inner * outer);
        for (int64_t row = element * rows; row < (element + 1) * rows;) {
            int pairs = 0;
            for (; pairs < ROW_PAIRS && row < (element + 1) * rows; pairs++, row += 2) {
                interleave(inner, a + row * inner, a + (row + 1) * inner, a_pairs[pairs]);
                interleave(outer, b + row * outer, b + (row + 1) * outer, b_pairs[pairs]);
            }
            for (int i = 0; i < inner; i += BLOCK_ROWS)
                for (int o = 0; o < outer; o += BF16_LANES) {
                    floats block[BLOCK_ROWS];
                    load_block(sum + i * outer + o, outer, block);
                    multiply_add(pairs, a_pairs[0] + i, inner, b_pairs[0] + o, outer, block);
                    store_block(block, outer, sum + i * outer + o);
                }
        }
    }
}
