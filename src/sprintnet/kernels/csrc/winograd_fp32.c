/* The Winograd convolution of winograd_fp32.py in fp32, in the compiler's vector extensions: one source for vectors of any width. The
   same steps as winograd.c. */
#include "products_fp32.h"
#include "streams.h"

#define ROWS_AT_ONCE 128 /* that weight_gradient multiplies at once */
#define FENCE stream_fence()
#define LARGE_TILES

#include "winograd_tiles.h"

int64_t lanes(void) { return LANES; }

static void multiply(int64_t length, int64_t inner, int64_t outer, const element *input, const element *matrix, element *output) {
    multiply_rows(length, inner, outer, input, inner, matrix, output);
}

/* Copies `count` columns, which are `stride` apart, so that they are contiguous. */
INLINE void pack(int64_t rows, const float *from, int64_t stride, float *to, const int count) {
    for (int64_t row = 0; row < rows; row++) memcpy(to + row * count, from + row * stride, sizeof *to * count);
}

/* sums (elements, inner, outer) = a' * b for each element: a (elements, rows, inner) and b (elements, rows, outer). Both are packed into
   blocks of columns: columns of wide matrices lie in few sets of a cache. */
void weight_gradient(int64_t elements, int64_t rows, int64_t inner, int64_t outer, const element *a, const element *b, float *sums) {
#pragma omp parallel for schedule(static)
    for (int64_t e = 0; e < elements; e++) {
        float *sum = sums + e * inner * outer, blocks[ROWS_AT_ONCE * inner], panel[ROWS_AT_ONCE * PANEL];
        memset(sum, 0, sizeof *sum * inner * outer);
        for (int64_t row = 0; row < rows; row += ROWS_AT_ONCE) {
            int64_t count = rows - row < ROWS_AT_ONCE ? rows - row : ROWS_AT_ONCE;
            const element *x = a + (e * rows + row) * inner, *g = b + (e * rows + row) * outer;
#define PACK(i, columns) pack(count, x + i, inner, blocks + count * i, columns)
            FOR_BLOCKS(inner, PACK);
            for (int64_t o = 0; o < outer; o += PANEL) {
                pack(count, g + o, outer, panel, PANEL);
#define ADD_BLOCK(i, columns) add_block(count, blocks + count * i, columns, panel, PANEL, sum + i * outer + o, outer, columns)
                FOR_BLOCKS(inner, ADD_BLOCK);
            }
        }
    }
}
