/* The Winograd convolution of winograd_fp32.py in fp32, in the compiler's vector extensions: one source for vectors of any width. The
   same steps as winograd.c. */
#include "vectors.h"

#define GEMM_ROWS (VECTOR_BYTES == 64 ? 12 : 6) /* whose sums fill the registers, with two vectors of columns */
#define CHANNELS LANES
#define PANEL (2 * LANES) /* columns of the matrix that are multiplied at once */
#define ROWS_AT_ONCE 128 /* that weight_gradient multiplies at once */
#define FENCE

typedef float element;

INLINE floats zeros(void) { return (floats){0}; }
INLINE floats plus(floats sum, float factor, floats values) { return sum + factor * values; }
INLINE floats load(const element *from) { return load_floats(from); }
INLINE void store(element *to, floats values) { memcpy(to, &values, sizeof values); }
INLINE void stream(element *to, floats values) { store(to, values); }

#include "winograd_tiles.h"

int64_t lanes(void) { return LANES; }

/* GEMM_ROWS rows of output = input * panel, of `vectors` vectors of columns */
INLINE void multiply_panel(int64_t inner, int64_t outer, const element *input, const element *panel, element *output, const int vectors) {
    floats sums[GEMM_ROWS][2];
#pragma GCC unroll 12
    for (int r = 0; r < GEMM_ROWS; r++) sums[r][0] = sums[r][1] = zeros();
    for (int64_t i = 0; i < inner; i++, panel += vectors * LANES) {
        floats low = load(panel), high = vectors == 2 ? load(panel + LANES) : zeros();
#pragma GCC unroll 12
        for (int r = 0; r < GEMM_ROWS; r++) {
            float value = input[r * inner + i];
            sums[r][0] += value * low;
            if (vectors == 2) sums[r][1] += value * high;
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < GEMM_ROWS; r++) {
        store(output + r * outer, sums[r][0]);
        if (vectors == 2) store(output + r * outer + LANES, sums[r][1]);
    }
}

/* output = input * matrix: input is (length, inner), output (length, outer), the length a multiple of 12. The matrix is in panels of PANEL
   columns, the last perhaps of LANES. */
static void multiply(int64_t length, int64_t inner, int64_t outer, const element *input, const element *matrix, element *output) {
    for (int64_t panel = 0; panel < outer; panel += PANEL, matrix += inner * PANEL)
        for (int64_t row = 0; row < length; row += GEMM_ROWS) {
            if (outer - panel >= PANEL)
                multiply_panel(inner, outer, input + row * inner, matrix, output + row * outer + panel, 2);
            else
                multiply_panel(inner, outer, input + row * inner, matrix, output + row * outer + panel, 1);
        }
}

/* block of GEMM_ROWS rows and PANEL columns of sums += a' * b, over `rows` rows of a and b */
INLINE void add_products(int64_t rows, const element *a, int64_t inner, const element *b, int64_t outer, int count, float *sums) {
    floats block[GEMM_ROWS][2];
#pragma GCC unroll 12
    for (int r = 0; r < GEMM_ROWS; r++)
        if (r < count) block[r][0] = load(sums + r * outer), block[r][1] = load(sums + r * outer + LANES);
    for (int64_t row = 0; row < rows; row++, a += inner, b += outer) {
        floats low = load(b), high = load(b + LANES);
#pragma GCC unroll 12
        for (int r = 0; r < GEMM_ROWS; r++)
            if (r < count) block[r][0] += a[r] * low, block[r][1] += a[r] * high;
    }
#pragma GCC unroll 12
    for (int r = 0; r < GEMM_ROWS; r++)
        if (r < count) store(sums + r * outer, block[r][0]), store(sums + r * outer + LANES, block[r][1]);
}

/* sums (elements, inner, outer) = a' * b for each element: a (elements, rows, inner) and b (elements, rows, outer). */
void weight_gradient(int64_t elements, int64_t rows, int64_t inner, int64_t outer, const element *a, const element *b, float *sums) {
#pragma omp parallel for schedule(static)
    for (int64_t e = 0; e < elements; e++) {
        float *sum = sums + e * inner * outer;
        memset(sum, 0, sizeof *sum * inner * outer);
        for (int64_t row = 0; row < rows; row += ROWS_AT_ONCE) {
            int64_t count = rows - row < ROWS_AT_ONCE ? rows - row : ROWS_AT_ONCE;
            const element *x = a + (e * rows + row) * inner, *g = b + (e * rows + row) * outer;
            for (int64_t o = 0; o < outer; o += PANEL) {
                int64_t i = 0;
                for (; i + GEMM_ROWS <= inner; i += GEMM_ROWS)
                    add_products(count, x + i, inner, g + o, outer, GEMM_ROWS, sum + i * outer + o);
                for (; i < inner; i += 2) add_products(count, x + i, inner, g + o, outer, 2, sum + i * outer + o);
            }
        }
    }
}
