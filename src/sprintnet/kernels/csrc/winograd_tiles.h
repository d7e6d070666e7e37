/* The steps of a Winograd convolution that do not depend on the number format, for winograd.c (bf16) and winograd_fp32.c. Before it is
   included: `element`, a value in memory; `floats`, CHANNELS values in registers, with zeros, plus, load, store and stream; `multiply`;
   LARGE_TILES where tiles may have 6 to 8 output pixels along a side.

   Feature maps are channels_last, with a multiple of CHANNELS channels. Transformed tiles are stored by element, tile, image of the group,
   channel. */
#include "winograd_transforms.h"
#include <omp.h>

typedef struct {
    int64_t channels;
    axis rows, columns;
} tiling;

static void multiply(int64_t length, int64_t inner, int64_t outer, const element *input, const element *matrix, element *output);

INLINE int64_t tiles_of(const tiling *t) { return t->rows.tiles * t->columns.tiles; }
INLINE int64_t elements_of(const tiling *t) { return t->rows.elements * t->columns.elements; }
INLINE int64_t pixels_of(const tiling *t) { return t->rows.size * t->columns.size; }

/* output = rows * tile * columns', for the tile at (y0, x0) of an image; zeros where there is no image */
INLINE void transform_tile(const tiling *t, int64_t y0, int64_t x0, const element *image, element *output, int64_t stride,
                           const int pixels, const int count) {
    floats tile[MAX_TILE_ELEMENTS][MAX_TILE_ELEMENTS];
    for (int p = 0; p < pixels; p++)
        for (int q = 0; q < pixels; q++) {
            int64_t y = y0 + p, x = x0 + q, is_inside = image && y >= 0 && x >= 0 && y < t->rows.size && x < t->columns.size;
            tile[p][q] = is_inside ? load(image + (y * t->columns.size + x) * t->channels) : zeros();
        }
    transform_square(&t->rows, &t->columns, tile, output, stride, pixels, count);
}

/* image += rows' * input * columns, at the tile's place (y0, x0) */
INLINE void add_tile(const tiling *t, int64_t y0, int64_t x0, const element *input, int64_t stride, floats *image, const int pixels,
                     const int count) {
    floats half[MAX_TILE_ELEMENTS][MAX_TILE_ELEMENTS], line[MAX_TILE_ELEMENTS];
    transform_back_rows(&t->rows, input, stride, half, pixels, count);
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

#ifdef LARGE_TILES
#define FOR_LARGE_TILES(call)      \
    case 110: call(10, 10); break; \
    case 99: call(9, 9); break;    \
    case 88: call(8, 8); break;    \
    case 90: call(8, 10); break;   \
    case 79: call(7, 9); break;    \
    case 68: call(6, 8); break;
#else
#define FOR_LARGE_TILES(call)
#endif

/* constants for each size of tile, so that the loops over its pixels and elements are unrolled */
#define FOR_SIZE(call)                                \
    switch (t->rows.pixels * 10 + t->rows.elements) { \
        FOR_LARGE_TILES(call)                         \
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
static void transform_images(const tiling *t, int64_t group, int64_t count, const element *images, element *output, int64_t stride) {
    for (int number = 0; number < group; number++)
        for (int tile = 0; tile < tiles_of(t); tile++)
            for (int channel = 0; channel < t->channels; channel += CHANNELS) {
                int64_t y = t->rows.first + tile / t->columns.tiles * t->rows.step;
                int64_t x = t->columns.first + tile % t->columns.tiles * t->columns.step;
                const element *image = number < count ? images + number * pixels_of(t) * t->channels + channel : 0;
                element *to = output + (tile * group + number) * t->channels + channel;
#define TRANSFORM(pixels, elements) transform_tile(t, y, x, image, to, stride, pixels, elements)
                FOR_SIZE(TRANSFORM)
            }
}

#define VECTORS (64 / (int)sizeof(element) / CHANNELS) /* of a cache line, which `stream` writes best as a whole */

/* Sums the transformed tiles into `count` images. */
static void sum_tiles(const tiling *t, int64_t group, int64_t count, const element *input, int64_t stride, element *images) {
    int64_t pixels = pixels_of(t);
    for (int number = 0; number < count; number++)
        for (int64_t channel = 0; channel < t->channels; channel += VECTORS * CHANNELS) {
            int64_t left = (t->channels - channel) / CHANNELS, vectors = left < VECTORS ? left : VECTORS;
            floats image[vectors][pixels];
            memset(image, 0, sizeof image);
            for (int tile = 0; tile < tiles_of(t); tile++)
                for (int64_t v = 0; v < vectors; v++) {
                    int64_t y = t->rows.first + tile / t->columns.tiles * t->rows.step;
                    int64_t x = t->columns.first + tile % t->columns.tiles * t->columns.step;
                    const element *from = input + (tile * group + number) * t->channels + channel + v * CHANNELS;
#define ADD(pixels, elements) add_tile(t, y, x, from, stride, image[v], pixels, elements)
                    FOR_SIZE(ADD)
                }
            for (int64_t pixel = 0; pixel < pixels; pixel++)
                for (int64_t v = 0; v < vectors; v++)
                    stream(images + (number * pixels + pixel) * t->channels + channel + v * CHANNELS, image[v][pixel]);
        }
}

/* output = convolution of the input with transformed filters, a group of images at a time. `kept` is the transformed input (elements, rows,
   channels), with rows for complete groups. `scratch` has room for the transformed input and output of a group, for each thread, with a
   row more: without it, all elements of a tile would lie in the same set of a cache. */
void convolve(const tiling *in, const tiling *out, int64_t images, int64_t group, const element *input, const element *filters,
              element *output, element *kept, element *scratch, int64_t threads) {
    int64_t elements = elements_of(in), rows = tiles_of(in) * group, groups = (images + group - 1) / group;
    int64_t in_size = rows * in->channels, in_stride = in_size + in->channels, out_stride = (rows + 1) * out->channels; /* of an element */
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t number = 0; number < groups; number++) {
        element *in_tiles = scratch + omp_get_thread_num() * elements * (in_stride + out_stride);
        element *out_tiles = in_tiles + elements * in_stride;
        int64_t first = number * group, count = images - first < group ? images - first : group;
        transform_images(in, group, count, input + first * pixels_of(in) * in->channels, in_tiles, in_stride);
        for (int64_t e = 0; e < elements; e++) {
            const element *tiles = in_tiles + e * in_stride;
            multiply(rows, in->channels, out->channels, tiles, filters + e * in->channels * out->channels, out_tiles + e * out_stride);
            for (int64_t i = 0; i < in_size; i += CHANNELS) stream(kept + (e * groups + number) * in_size + i, load(tiles + i));
        }
        sum_tiles(out, group, count, out_tiles, out_stride, output + first * pixels_of(out) * out->channels);
        FENCE;
    }
}
