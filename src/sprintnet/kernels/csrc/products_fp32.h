/* Matrix products in fp32 in the compiler's vector extensions, for winograd_fp32.c and conv_pool_fp32.c. */
#include "vectors.h"

#define GEMM_ROWS (VECTOR_BYTES == 64 ? 12 : 6) /* whose sums fill the registers, with two vectors of columns */
#define CHANNELS LANES
#define PANEL (2 * LANES) /* columns of the matrix that are multiplied at once */
#define LINE 16           /* values of a cache line */

typedef float element;

INLINE floats zeros(void) { return (floats){0}; }
INLINE floats plus(floats sum, float factor, floats values) { return sum + factor * values; }
INLINE floats load(const element *from) { return load_floats(from); }
INLINE void store(element *to, floats values) { memcpy(to, &values, sizeof values); }

/* GEMM_ROWS rows of output = input * panel, of `vectors` vectors of columns */
INLINE void multiply_panel(int64_t inner, int64_t input_stride, int64_t output_stride, const float *input, const float *panel,
                           float *output, const int vectors) {
    floats sums[GEMM_ROWS][2];
#pragma GCC unroll 12
    for (int r = 0; r < GEMM_ROWS; r++) sums[r][0] = sums[r][1] = zeros();
    for (int64_t i = 0; i < inner; i++, panel += vectors * LANES) {
        floats low = load(panel), high = vectors == 2 ? load(panel + LANES) : zeros();
        __builtin_prefetch(panel + inner * PANEL); /* the next panel */
        if (PANEL > LINE) __builtin_prefetch(panel + inner * PANEL + LINE);
#pragma GCC unroll 12
        for (int r = 0; r < GEMM_ROWS; r++) {
            float value = input[r * input_stride + i];
            sums[r][0] += value * low;
            if (vectors == 2) sums[r][1] += value * high;
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < GEMM_ROWS; r++) {
        store(output + r * output_stride, sums[r][0]);
        if (vectors == 2) store(output + r * output_stride + LANES, sums[r][1]);
    }
}

/* output (length, outer) = input (length, inner) * matrix, for a length that is a multiple of GEMM_ROWS. The matrix is in panels of PANEL
   columns, the last perhaps of LANES; rows of the input are `stride` apart. */
static void multiply_rows(int64_t length, int64_t inner, int64_t outer, const float *input, int64_t stride, const float *matrix,
                          float *output) {
    for (int64_t panel = 0; panel < outer; panel += PANEL, matrix += inner * PANEL)
        for (int64_t row = 0; row < length; row += GEMM_ROWS) {
            if (outer - panel >= PANEL)
                multiply_panel(inner, stride, outer, input + row * stride, matrix, output + row * outer + panel, 2);
            else
                multiply_panel(inner, stride, outer, input + row * stride, matrix, output + row * outer + panel, 1);
        }
}

/* block of `count` rows and PANEL columns of sums += a' * b, over `rows` rows of a and b */
INLINE void add_block(int64_t rows, const float *a, int64_t a_stride, const float *b, int64_t b_stride, float *sums, int64_t outer,
                      const int count) {
    floats block[GEMM_ROWS][2];
#pragma GCC unroll 12
    for (int r = 0; r < GEMM_ROWS; r++)
        if (r < count) block[r][0] = load(sums + r * outer), block[r][1] = load(sums + r * outer + LANES);
#pragma GCC unroll 4
    for (int64_t row = 0; row < rows; row++, a += a_stride, b += b_stride) {
        floats low = load(b), high = load(b + LANES);
#pragma GCC unroll 12
        for (int r = 0; r < GEMM_ROWS; r++)
            if (r < count) block[r][0] += a[r] * low, block[r][1] += a[r] * high;
    }
#pragma GCC unroll 12
    for (int r = 0; r < GEMM_ROWS; r++)
        if (r < count) store(sums + r * outer, block[r][0]), store(sums + r * outer + LANES, block[r][1]);
}

/* Calls `call(first row, rows)` for blocks of an even number of rows: of GEMM_ROWS, then of 4, then of 2. */
#define FOR_BLOCKS(inner, call)                                              \
    do {                                                                     \
        int64_t i = 0;                                                       \
        for (; i + GEMM_ROWS <= (inner); i += GEMM_ROWS) call(i, GEMM_ROWS); \
        for (; i + 4 <= (inner); i += 4) call(i, 4);                         \
        for (; i < (inner); i += 2) call(i, 2);                              \
    } while (0)
