/* The Winograd convolution of winograd.py, a group of images at a time, so that the data between its three steps stay in a core's own
   cache: the input transform, a matrix product for each tile element, the output transform. The gradient w.r.t. the input takes the same
   steps with both transforms transposed; weight_gradient computes that of the transformed weight.

   Feature maps are bf16, channels_last, with a multiple of BF16_LANES channels. Along an axis, tiles of `pixels` begin at `first`, `step`
   apart (pixels outside of the feature map are 0); a matrix transforms each into `elements`. In two dimensions the transform is that of
   the rows, then that of the columns. Transformed tiles are stored by element, tile, image of the group, channel. */
#include <omp.h>

#include "winograd.h"

#define GEMM_ROWS 12 /* whose sums fill the registers, with BF16_LANES columns */
#define ROW_PAIRS 64 /* that weight_gradient interleaves at once */

typedef struct {
    int64_t size, tiles, first, step, pixels, elements;
    float matrix[MAX_TILE_SIDE][MAX_TILE_SIDE]; /* elements by pixels */
} axis;

typedef struct {
    int64_t channels;
    axis rows, columns;
} tiling;

INLINE floats load(const uint16_t *from) {
    __m512i values = _mm512_loadu_si512(from);
    return (floats){to_fp32(_mm512_castsi512_si256(values)), to_fp32(_mm512_extracti64x4_epi64(values, 1))};
}

INLINE floats plus(floats sum, float factor, floats values) {
    __m512 factors = _mm512_set1_ps(factor);
    return (floats){_mm512_fmadd_ps(factors, values.low, sum.low), _mm512_fmadd_ps(factors, values.high, sum.high)};
}

INLINE int64_t tiles_of(const tiling *t) { return t->rows.tiles * t->columns.tiles; }
INLINE int64_t elements_of(const tiling *t) { return t->rows.elements * t->columns.elements; }
INLINE int64_t pixels_of(const tiling *t) { return t->rows.size * t->columns.size; }

/* The rows of a matrix belong to the points 0, a, -a, b, -b, ... and infinity. Two rows of opposite points differ in the sign of their odd
   columns, so a pair of rows costs as much as one; the rows of 0 and infinity have only even or only odd columns. */
INLINE int first_pair(int elements) { return elements % 2 == 0; } /* without the point 0 the pairs come first */

INLINE floats alternate_sum(const float *row, const floats *pixels, int stride, int from, int count) {
    floats sum = zeros();
    for (int p = from; p < count; p += 2) sum = plus(sum, row[p], pixels[p * stride]);
    return sum;
}

/* transformed = matrix * pixels */
INLINE void transform(const axis *t, const floats *pixels, int stride, floats *transformed, const int count, const int elements) {
    if (first_pair(elements)) transformed[0] = alternate_sum(t->matrix[0], pixels, stride, 0, count);
    for (int a = first_pair(elements); a < elements - 1; a += 2) {
        floats even = alternate_sum(t->matrix[a], pixels, stride, 0, count), odd = alternate_sum(t->matrix[a], pixels, stride, 1, count);
        transformed[a] = plus(even, 1, odd);
        transformed[a + 1] = plus(even, -1, odd);
    }
    transformed[elements - 1] = alternate_sum(t->matrix[elements - 1], pixels, stride, (elements - 1) % 2, count);
}

/* pixels = matrix' * transformed */
INLINE void transform_back(const axis *t, const floats *transformed, int stride, floats *pixels, const int count, const int elements) {
    for (int p = 0; p < count; p++) pixels[p] = zeros();
    for (int a = first_pair(elements); a < elements - 1; a += 2) {
        floats even = plus(transformed[a * stride], 1, transformed[(a + 1) * stride]);
        floats odd = plus(transformed[a * stride], -1, transformed[(a + 1) * stride]);
        for (int p = 0; p < count; p++) pixels[p] = plus(pixels[p], t->matrix[a][p], p % 2 ? odd : even);
    }
    for (int p = 0; p < count; p++) {
        if (first_pair(elements) && p % 2 == 0) pixels[p] = plus(pixels[p], t->matrix[0][p], transformed[0]);
        if (p % 2 == (elements - 1) % 2) pixels[p] = plus(pixels[p], t->matrix[elements - 1][p], transformed[(elements - 1) * stride]);
    }
}

/* output = rows * tile * columns', for the tile at (y0, x0) of an image; zeros where there is no image */
INLINE void transform_tile(const tiling *t, int64_t y0, int64_t x0, const uint16_t *image, uint16_t *output, int64_t stride,
                           const int pixels, const int count) {
    floats tile[MAX_TILE_SIDE][MAX_TILE_SIDE], half[MAX_TILE_SIDE][MAX_TILE_SIDE], line[MAX_TILE_SIDE];
    for (int p = 0; p < pixels; p++)
        for (int q = 0; q < pixels; q++) {
            int64_t y = y0 + p, x = x0 + q, is_inside = image && y >= 0 && x >= 0 && y < t->rows.size && x < t->columns.size;
            tile[p][q] = is_inside ? load(image + (y * t->columns.size + x) * t->channels) : zeros();
        }
    for (int q = 0; q < pixels; q++) {
        transform(&t->rows, &tile[0][q], MAX_TILE_SIDE, line, pixels, count);
        for (int a = 0; a < count; a++) half[a][q] = line[a];
    }
    for (int a = 0; a < count; a++) {
        transform(&t->columns, half[a], 1, line, pixels, count);
        for (int b = 0; b < count; b++) _mm512_store_si512((void *)(output + (a * count + b) * stride), to_bf16(line[b]));
    }
}

/* image += rows' * input * columns, at the tile's place (y0, x0) */
INLINE void add_tile(const tiling *t, int64_t y0, int64_t x0, const uint16_t *input, int64_t stride, floats *image, const int pixels,
                     const int count) {
    floats column[MAX_TILE_SIDE], half[MAX_TILE_SIDE][MAX_TILE_SIDE], line[MAX_TILE_SIDE];
    for (int b = 0; b < count; b++) {
        for (int a = 0; a < count; a++) column[a] = load(input + (a * count + b) * stride);
        transform_back(&t->rows, column, 1, line, pixels, count);
        for (int p = 0; p < pixels; p++) half[p][b] = line[p];
    }
    for (int p = 0; p < pixels; p++) {
        int64_t y = y0 + p;
        if (y < 0 || y >= t->rows.size) continue;
        transform_back(&t->columns, half[p], 1, line, pixels, count);
        for (int q = 0; q < pixels; q++) {
            int64_t x = x0 + q;
            floats *sum = image + y * t->columns.size + x;
            if (x >= 0 && x < t->columns.size) *sum = plus(*sum, 1, line[q]);
        }
    }
}

/* constants for each size of tile, so that the loops over its pixels and elements are unrolled */
#define FOR_SIZE(call)                                \
    switch (t->rows.pixels * 10 + t->rows.elements) { \
        case 77: call(7, 7); break;                   \
        case 66: call(6, 6); break;                   \
        case 55: call(5, 5); break;                   \
        case 44: call(4, 4); break;                   \
        case 57: call(5, 7); break;                   \
        case 46: call(4, 6); break;                   \
        case 35: call(3, 5); break;                   \
        case 24: call(2, 4); break;                   \
    }

/* Transforms the tiles of `count` images; those of the rest of the group are 0. */
static void transform_images(const tiling *t, int64_t group, int64_t count, const uint16_t *images, uint16_t *output) {
    int64_t stride = tiles_of(t) * group * t->channels;
    for (int number = 0; number < group; number++)
        for (int tile = 0; tile < tiles_of(t); tile++)
            for (int channel = 0; channel < t->channels; channel += BF16_LANES) {
                int64_t y = t->rows.first + tile / t->columns.tiles * t->rows.step;
                int64_t x = t->columns.first + tile % t->columns.tiles * t->columns.step;
                const uint16_t *image = number < count ? images + number * pixels_of(t) * t->channels + channel : 0;
                uint16_t *to = output + (tile * group + number) * t->channels + channel;
#define TRANSFORM(pixels, elements) transform_tile(t, y, x, image, to, stride, pixels, elements)
                FOR_SIZE(TRANSFORM)
            }
}

/* Sums the transformed tiles into `count` images. */
static void sum_tiles(const tiling *t, int64_t group, int64_t count, const uint16_t *input, uint16_t *images) {
    int64_t stride = tiles_of(t) * group * t->channels, pixels = pixels_of(t);
    for (int number = 0; number < count; number++)
        for (int channel = 0; channel < t->channels; channel += BF16_LANES) {
            floats image[pixels];
            memset(image, 0, sizeof image);
            for (int tile = 0; tile < tiles_of(t); tile++) {
                int64_t y = t->rows.first + tile / t->columns.tiles * t->rows.step;
                int64_t x = t->columns.first + tile % t->columns.tiles * t->columns.step;
                const uint16_t *from = input + (tile * group + number) * t->channels + channel;
#define ADD(pixels, elements) add_tile(t, y, x, from, stride, image, pixels, elements)
                FOR_SIZE(ADD)
            }
            for (int64_t pixel = 0; pixel < pixels; pixel++)
                _mm512_stream_si512((void *)(images + (number * pixels + pixel) * t->channels + channel), to_bf16(image[pixel]));
        }
}

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

/* Copies `size` values without polluting the caches. */
static void stream(int64_t size, const uint16_t *from, uint16_t *to) {
    for (int64_t i = 0; i < size; i += BF16_LANES) _mm512_stream_si512((void *)(to + i), _mm512_load_si512(from + i));
}

/* output = convolution of the input with transformed filters, a group of images at a time. `kept` is the transformed input (elements, rows,
   channels), with rows for complete groups. `scratch` has room for the transformed input and output of a group, for each thread. */
void convolve(const tiling *in, const tiling *out, int64_t images, int64_t group, const uint16_t *input, const uint16_t *filters,
              uint16_t *output, uint16_t *kept, uint16_t *scratch, int64_t threads) {
    int64_t elements = elements_of(in), rows = tiles_of(in) * group, groups = (images + group - 1) / group;
    int64_t in_size = rows * in->channels, out_size = rows * out->channels; /* of an element */
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t number = 0; number < groups; number++) {
        uint16_t *in_tiles = scratch + omp_get_thread_num() * elements * (in_size + out_size);
        uint16_t *out_tiles = in_tiles + elements * in_size;
        int64_t first = number * group, count = images - first < group ? images - first : group;
        transform_images(in, group, count, input + first * pixels_of(in) * in->channels, in_tiles);
        for (int64_t element = 0; element < elements; element++) {
            multiply(rows, in->channels, out->channels, in_tiles + element * in_size, filters + element * in->channels * out->channels,
                     out_tiles + element * out_size);
            stream(in_size, in_tiles + element * in_size, kept + (element * groups + number) * in_size);
        }
        sum_tiles(out, group, count, out_tiles, output + first * pixels_of(out) * out->channels);
        _mm_sfence();
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
