/* A 3x3 convolution with padding 1 and 2x2 max pooling in fp32, for conv_pool_fp32.py: a Winograd convolution whose output transform takes
   the maxima, so that the feature map between them is never written. Computes the gradient w.r.t. the weight, none w.r.t. the input, whose
   transform is computed again instead of kept.

   Feature maps are channels_last, with an even number of input channels and a multiple of PANEL output channels. A last odd row or column
   is dropped. A tile has 6x6 pixels of the convolution, which are 3x3 windows. */
#include "parts.h"
#include "products_fp32.h"
#include "winograd_transforms.h"
#include <omp.h>

#define SIDE 6
#define WINDOWS (SIDE / 2)  /* along a tile's side */
#define ELEMENTS (SIDE + 2) /* of a transformed tile's side */
#define CHUNK 24            /* tiles that are transformed and multiplied at once: a multiple of GEMM_ROWS */

typedef struct {
    int64_t height, width, channels, out_channels;
    axis input, output; /* of the tiles; both axes of a feature map are transformed by the same matrix */
} layer;

/* What follows from a layer. Chunks of transformed tiles are stored by element, tile, channel. */
typedef struct {
    int64_t rows, columns;         /* of windows */
    int64_t tile_columns, tiles;   /* tiles in a row, and of an image */
    int64_t channels;              /* of the input, as a multiple of LANES */
    int64_t padded_width, padded;  /* pixels in a row of a zero-padded image, values of the image */
    int64_t in_stride, out_stride; /* values between elements of a chunk; LINE more than needed: else all would lie in one set of a cache */
} sizes;

static sizes sizes_of(const layer *l) {
    sizes s = {.rows = l->height / 2, .columns = l->width / 2};
    s.tile_columns = (s.columns + WINDOWS - 1) / WINDOWS;
    int64_t tile_rows = (s.rows + WINDOWS - 1) / WINDOWS;
    s.tiles = tile_rows * s.tile_columns;
    s.channels = (l->channels + LANES - 1) / LANES * LANES;
    s.padded_width = s.tile_columns * SIDE + 2;
    s.padded = (tile_rows * SIDE + 2) * s.padded_width * s.channels;
    s.in_stride = CHUNK * s.channels + LINE;
    s.out_stride = CHUNK * l->out_channels + LINE;
    return s;
}

/* Values of the working memory of a thread. */
int64_t scratch_size(const layer *l) {
    sizes s = sizes_of(l);
    return s.padded + ELEMENTS * ELEMENTS * (s.in_stride + s.out_stride);
}

/* The rest of the padded image is 0 already. */
static void pad(const layer *l, const sizes *s, const float *image, float *padded) {
    for (int64_t y = 0; y < l->height; y++)
        for (int64_t x = 0; x < l->width; x++)
            memcpy(padded + ((y + 1) * s->padded_width + x + 1) * s->channels, image + (y * l->width + x) * l->channels,
                   sizeof *image * l->channels);
}

/* Transforms `count` tiles of the batch, of which `first` is the number; pads each image before its first tile. */
static void transform_inputs(const layer *l, const sizes *s, int64_t first, int64_t count, int64_t *padded_image, const float *input,
                             float *padded, float *output) {
    for (int64_t tile = first; tile < first + count; tile++, output += s->channels) {
        int64_t image = tile / s->tiles, y = tile % s->tiles / s->tile_columns * SIDE, x = tile % s->tiles % s->tile_columns * SIDE;
        if (image != *padded_image) pad(l, s, input + image * l->height * l->width * l->channels, padded);
        *padded_image = image;
        for (int64_t channel = 0; channel < s->channels; channel += LANES) {
            floats pixels[MAX_TILE_ELEMENTS][MAX_TILE_ELEMENTS];
            for (int p = 0; p < ELEMENTS; p++)
                for (int q = 0; q < ELEMENTS; q++)
                    pixels[p][q] = load(padded + ((y + p) * s->padded_width + x + q) * s->channels + channel);
            transform_square(&l->input, &l->input, pixels, output + channel, s->in_stride, ELEMENTS, ELEMENTS);
        }
    }
}

/* Calls `call(row, column, to)` for the windows of a tile that exist: their place in the tile, and the place of their maxima. */
#define FOR_WINDOWS(s, tile, out_channels, call)                                                                    \
    for (int row = 0; row < WINDOWS; row++)                                                                         \
        for (int column = 0; column < WINDOWS; column++) {                                                          \
            int64_t y = (tile) % (s)->tiles / (s)->tile_columns * WINDOWS + row;                                    \
            int64_t x = (tile) % (s)->tiles % (s)->tile_columns * WINDOWS + column;                                 \
            if (y < (s)->rows && x < (s)->columns)                                                                  \
                call(row, column, (((tile) / (s)->tiles * (s)->rows + y) * (s)->columns + x) * (out_channels));     \
        }

/* Transforms `count` tiles back and writes the maxima of their windows. */
static void pool(const layer *l, const sizes *s, int64_t first, int64_t count, const float *input, float *output, uint8_t *argmax) {
    for (int64_t tile = first; tile < first + count; tile++, input += l->out_channels)
        for (int64_t channel = 0; channel < l->out_channels; channel += LANES) {
            floats half[MAX_TILE_ELEMENTS][MAX_TILE_ELEMENTS], pixels[SIDE][MAX_TILE_ELEMENTS];
            transform_back_rows(&l->output, input + channel, s->out_stride, half, SIDE, ELEMENTS);
            for (int p = 0; p < SIDE; p++) transform_back(&l->output, half[p], 1, pixels[p], SIDE, ELEMENTS);
#define POOL(row, column, to)                                                                                       \
    do {                                                                                                            \
        const floats *above = &pixels[2 * row][2 * column], *below = &pixels[2 * row + 1][2 * column];              \
        const float *window[4] = {(void *)above, (void *)(above + 1), (void *)below, (void *)(below + 1)};          \
        store(output + (to) + channel, maximum(window, argmax + (to) + channel));                                   \
    } while (0)
            FOR_WINDOWS(s, tile, l->out_channels, POOL)
        }
}

/* The gradient of a window's pixel: that of the maximum where it came from there, else 0. */
INLINE floats gradient_at(int place, floats gradient, integers argmax) {
    return (floats)choose(argmax == (integers){0} + place, (integers)gradient, (integers){0});
}

/* Transforms the gradient of `count` tiles, as that of their pixels. */
static void transform_gradients(const layer *l, const sizes *s, int64_t first, int64_t count, const float *grad_output,
                                const uint8_t *argmax, float *output) {
    for (int64_t tile = first; tile < first + count; tile++, output += l->out_channels)
        for (int64_t channel = 0; channel < l->out_channels; channel += LANES) {
            floats pixels[MAX_TILE_ELEMENTS][MAX_TILE_ELEMENTS];
            memset(pixels, 0, sizeof pixels);
#define UNPOOL(row, column, to)                                                                                     \
    do {                                                                                                            \
        bytes narrow;                                                                                               \
        memcpy(&narrow, argmax + (to) + channel, sizeof narrow);                                                    \
        integers places = __builtin_convertvector(narrow, integers);                                                \
        floats gradient = load(grad_output + (to) + channel);                                                       \
        for (int place = 0; place < 4; place++)                                                                     \
            pixels[2 * row + place / 2][2 * column + place % 2] = gradient_at(place, gradient, places);             \
    } while (0)
            FOR_WINDOWS(s, tile, l->out_channels, UNPOOL)
            transform_square(&l->output, &l->output, pixels, output + channel, s->out_stride, SIDE, ELEMENTS);
        }
}

/* output: the maxima of the convolved input; argmax: the pixel of its 2x2 window that each comes from (row * 2 + column). Filters are
   transformed, in the panels that multiply_rows reads. `scratch` has room for scratch_size values for each thread. */
void conv_pool(const layer *l, int64_t images, const float *input, const float *filters, float *output, uint8_t *argmax, float *scratch,
               int64_t threads) {
    sizes s = sizes_of(l);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t part = 0; part < BATCH_PARTS; part++) {
        float *padded = scratch + omp_get_thread_num() * scratch_size(l), *in_tiles = padded + s.padded;
        float *out_tiles = in_tiles + ELEMENTS * ELEMENTS * s.in_stride;
        int64_t end = images * (part + 1) / BATCH_PARTS * s.tiles, padded_image = -1;
        memset(padded, 0, sizeof *padded * s.padded);
        for (int64_t first = images * part / BATCH_PARTS * s.tiles; first < end; first += CHUNK) {
            int64_t count = end - first < CHUNK ? end - first : CHUNK, rows = (count + GEMM_ROWS - 1) / GEMM_ROWS * GEMM_ROWS;
            transform_inputs(l, &s, first, count, &padded_image, input, padded, in_tiles);
            for (int64_t e = 0; e < ELEMENTS * ELEMENTS; e++)
                multiply_rows(rows, l->channels, l->out_channels, in_tiles + e * s.in_stride, s.channels,
                              filters + e * l->channels * l->out_channels, out_tiles + e * s.out_stride);
            pool(l, &s, first, count, out_tiles, output, argmax);
        }
    }
}

/* sums (BATCH_PARTS, elements, channels, out_channels): the gradient w.r.t. the transformed filters by parts of the batch. */
void conv_pool_backward(const layer *l, int64_t images, const float *input, const float *grad_output, const uint8_t *argmax, float *sums,
                        float *scratch, int64_t threads) {
    sizes s = sizes_of(l);
    int64_t filters = l->channels * l->out_channels;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t part = 0; part < BATCH_PARTS; part++) {
        float *padded = scratch + omp_get_thread_num() * scratch_size(l), *in_tiles = padded + s.padded;
        float *grad_tiles = in_tiles + ELEMENTS * ELEMENTS * s.in_stride;
        int64_t end = images * (part + 1) / BATCH_PARTS * s.tiles, padded_image = -1;
        memset(padded, 0, sizeof *padded * s.padded);
        memset(sums + part * ELEMENTS * ELEMENTS * filters, 0, sizeof *sums * ELEMENTS * ELEMENTS * filters);
        for (int64_t first = images * part / BATCH_PARTS * s.tiles; first < end; first += CHUNK) {
            int64_t count = end - first < CHUNK ? end - first : CHUNK;
            transform_inputs(l, &s, first, count, &padded_image, input, padded, in_tiles);
            transform_gradients(l, &s, first, count, grad_output, argmax, grad_tiles);
            for (int64_t e = 0; e < ELEMENTS * ELEMENTS; e++) {
                const float *x = in_tiles + e * s.in_stride, *g = grad_tiles + e * s.out_stride;
                float *sum = sums + (part * ELEMENTS * ELEMENTS + e) * filters;
                for (int64_t o = 0; o < l->out_channels; o += PANEL) {
#define ADD_PRODUCTS(i, rows) \
    add_block(count, x + i, s.channels, g + o, l->out_channels, sum + i * l->out_channels + o, l->out_channels, rows)
                    FOR_BLOCKS(l->channels, ADD_PRODUCTS);
                }
            }
        }
    }
}
