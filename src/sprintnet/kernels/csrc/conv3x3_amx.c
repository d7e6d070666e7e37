/* A 3x3 convolution with padding 1 in tile products, for conv3x3_amx.py. Feature maps are bf16 in HWNC: (height, width, image, channel), so
   that a tile holds one pixel of TILE images, a tap is another pixel, and taps outside the map are left out. There are at least BLOCK
   images. The channels of an image in an input may be followed by others up to its `pitch`, a multiple of BLOCK, so that tiles are aligned;
   what follows the last channel meets zeros in the filters. */
#include <omp.h>

#include "tiles.h"
#include "vectors.h"

#include "streams.h"
#include "tile_layouts.h"

#define MAX_CHANNELS 1024
#define BAND_BYTES (1 << 20)

typedef float tile_sums[TILE][TILE];

static const uint16_t zeros[MAX_CHANNELS];

/* Stores BLOCK fp32 sums as bf16, `kept` of them; past the caches where possible, since a map is larger than a cache */
INLINE void store_row(uint16_t *to, int64_t kept, const float *first, const float *second) {
#ifdef __AVX512BF16__
    values row = (values)_mm512_cvtne2ps_pbh(_mm512_load_ps(second), _mm512_load_ps(first));
    if (kept >= BLOCK && (uintptr_t)to % sizeof row == 0) {
        _mm512_stream_si512((void *)to, (__m512i)row);
        return;
    }
#else
    uint16_t row[BLOCK];
    for (int lane = 0; lane < TILE; lane += LANES) {
        store_bf16(row + lane, load_floats(first + lane));
        store_bf16(row + TILE + lane, load_floats(second + lane));
    }
#endif
    if (kept >= BLOCK)
        memcpy(to, &row, sizeof row);
    else
        memcpy(to, &row, kept * sizeof *to);
}

/* Filters in the order in which `multiply` reads them: bf16, for each BLOCK of output channels, tap and BLOCK of input channels, two tiles
   of TILE_DEPTH input channels, in pairs, by TILE output channels; zeros after the last channels. weight: fp32 (out_channels, 9, channels),
   or, for the gradient of the input, (channels, 9, out_channels), whose taps are reversed. Called by every thread of a parallel region. */
static void lay_out(int64_t channels, int64_t out_channels, int is_gradient, const float *weight, uint16_t *filters) {
#pragma omp for schedule(static) collapse(2)
    for (int64_t out = 0; out < round_up(out_channels); out += TILE)
        for (int64_t tap = 0; tap < 9; tap++)
            for (int64_t in = 0; in < round_up(channels); in += TILE_DEPTH) {
                uint16_t *tile = filters + (out / BLOCK * 9 + tap) * round_up(channels) * BLOCK + in * BLOCK + out % BLOCK * TILE_DEPTH;
                for (int64_t i = 0; i < TILE_DEPTH; i++)
                    for (int64_t o = 0; o < TILE; o++) {
                        int is_filter = in + i < channels && out + o < out_channels;
                        const float *from = is_gradient ? weight + ((in + i) * 9 + 8 - tap) * out_channels + out + o
                                                        : weight + ((out + o) * 9 + tap) * channels + in + i;
                        tile[i / 2 * TILE_DEPTH + o * 2 + i % 2] = is_filter ? to_bf16(*from) : 0;
                    }
            }
}

/* The first of the BLOCK images of a block; the last block overlaps the one before, where images are no multiple of BLOCK. */
static inline int64_t first_image(int64_t block, int64_t images) { return block * BLOCK < images - BLOCK ? block * BLOCK : images - BLOCK; }

/* The even number of rows of BLOCK images whose input, with a row above and one below, stays in a core's cache for all output channels. */
static inline int64_t band_of(int64_t width, int64_t pitch) {
    int64_t rows = BAND_BYTES / (width * pitch * BLOCK * (int64_t)sizeof(uint16_t)) / 2 * 2 - 2;
    return rows < 2 ? 2 : rows;
}

/* The sums of a pixel (y, x): those of BLOCK images by BLOCK output channels. input: tiles of `pack`, rows from `above` on. filters: those
   of the output channels. A store after more than about 130 products without one takes 270 ns longer on Granite Rapids (LOG.md), so that
   there is one, of no use, for each tap. */
static inline void multiply(int64_t height, int64_t width, int64_t channels, const uint16_t *input, int64_t above, const uint16_t *filters,
                            int64_t y, int64_t x, tile_sums sums[4]) {
    int64_t steps = round_up(channels) / TILE_DEPTH;
    tile_zero(0);
    tile_zero(1);
    tile_zero(2);
    tile_zero(3);
    MEMORY_BARRIER;
    for (int64_t row = y ? 0 : 1; row < (y + 1 < height ? 3 : 2); row++)
        for (int64_t column = x ? 0 : 1; column < (x + 1 < width ? 3 : 2); column++) {
            const uint16_t *a = input + ((y + row - 1 - above) * width + x + column - 1) * steps * 2 * TILE_VALUES;
            const uint16_t *b = filters + (row * 3 + column) * steps * 2 * TILE_VALUES;
            for (int64_t step = 0; step < steps; step++, a += 2 * TILE_VALUES, b += 2 * TILE_VALUES) {
                tile_load(4, a, 64);
                tile_load(6, b, 64);
                tile_dot(0, 4, 6);
                tile_load(7, b + TILE_VALUES, 64);
                tile_dot(1, 4, 7);
                tile_load(5, a + TILE_VALUES, 64);
                tile_dot(2, 5, 6);
                tile_dot(3, 5, 7);
            }
            if (steps > 2) tile_store(4, sums[0], 64);
        }
    tile_store(0, sums[0], 64);
    tile_store(1, sums[1], 64);
    tile_store(2, sums[2], 64);
    tile_store(3, sums[3], 64);
    MEMORY_BARRIER;
}

/* weight: as in lay_out; filters: room for them; scratch: room for height * width * BLOCK images of the rounded channels, for each thread.
   With argmax, the input is the gradient of the maxima of `convolve_and_pool`. */
void convolve(int64_t images, int64_t height, int64_t width, int64_t pitch, int64_t channels, int64_t out_channels, const uint16_t *input,
              const uint8_t *argmax, const float *weight, int64_t is_gradient, uint16_t *filters, uint16_t *scratch, uint16_t *output,
              int64_t threads) {
    int64_t blocks = (images + BLOCK - 1) / BLOCK, band = band_of(width, pitch);
#pragma omp parallel num_threads(threads)
    {
        tile_sums sums[4] __attribute__((aligned(64)));
        uint16_t *packed = scratch + omp_get_thread_num() * height * width * round_up(channels) * BLOCK;
        lay_out(channels, out_channels, is_gradient, weight, filters);
        tiles_begin();
#pragma omp for schedule(static) collapse(2)
        for (int64_t block = 0; block < blocks; block++)
            for (int64_t top = 0; top < height; top += band) {
                int64_t first = first_image(block, images), bottom = top + band < height ? top + band : height;
                int64_t above = top ? top - 1 : 0, below = bottom < height ? bottom + 1 : height;
                const uint16_t *from = input + first * pitch;
                if (argmax)
                    unpool(images, height, width, channels, from, argmax + first * channels, above, below, packed);
                else
                    pack(images, width, pitch, channels, from, above, below, packed);
                MEMORY_BARRIER;
                for (int64_t out = 0; out < out_channels; out += BLOCK)
                    for (int64_t pixel = top * width; pixel < bottom * width; pixel++) {
                        multiply(height, width, channels, packed, above, filters + out * 9 * round_up(channels), pixel / width,
                                 pixel % width, sums);
                        for (int64_t image = 0; image < BLOCK; image++)
                            store_row(output + (pixel * images + first + image) * out_channels + out, out_channels - out,
                                      sums[image / TILE * 2][image % TILE], sums[image / TILE * 2 + 1][image % TILE]);
                    }
                stream_fence();
            }
        tiles_end();
    }
}

/* The same with 2x2 max pooling after it. output: the maxima; argmax: the pixel of its 2x2 window that each comes from (row * 2 + column).
   A last odd row or column is dropped. Output channels are a multiple of BLOCK. */
void convolve_and_pool(int64_t images, int64_t height, int64_t width, int64_t pitch, int64_t channels, int64_t out_channels,
                       const uint16_t *input, const float *weight, uint16_t *filters, uint16_t *scratch, uint16_t *output, uint8_t *argmax,
                       int64_t threads) {
    int64_t blocks = (images + BLOCK - 1) / BLOCK, rows = height / 2, columns = width / 2, band = band_of(width, pitch) / 2;
#pragma omp parallel num_threads(threads)
    {
        tile_sums sums[4][4] __attribute__((aligned(64)));
        uint16_t *packed = scratch + omp_get_thread_num() * height * width * round_up(channels) * BLOCK;
        lay_out(channels, out_channels, 0, weight, filters);
        tiles_begin();
#pragma omp for schedule(static) collapse(2)
        for (int64_t block = 0; block < blocks; block++)
            for (int64_t top = 0; top < rows; top += band) {
                int64_t first = first_image(block, images), bottom = top + band < rows ? top + band : rows;
                int64_t above = top ? 2 * top - 1 : 0, below = 2 * bottom < height ? 2 * bottom + 1 : height;
                pack(images, width, pitch, channels, input + first * pitch, above, below, packed);
                MEMORY_BARRIER;
                for (int64_t out = 0; out < out_channels; out += BLOCK)
                    for (int64_t window = top * columns; window < bottom * columns; window++) {
                        for (int place = 0; place < 4; place++)
                            multiply(height, width, channels, packed, above, filters + out * 9 * round_up(channels),
                                     window / columns * 2 + place / 2, window % columns * 2 + place % 2, sums[place]);
                        for (int64_t image = 0; image < BLOCK; image++) {
                            int64_t to = (window * images + first + image) * out_channels + out;
                            float maxima[BLOCK] __attribute__((aligned(64)));
                            for (int lane = 0; lane < BLOCK; lane += LANES) {
                                int tile = image / TILE * 2 + lane / TILE, row = image % TILE, column = lane % TILE;
                                const float *pixels[4] = {sums[0][tile][row] + column, sums[1][tile][row] + column,
                                                          sums[2][tile][row] + column, sums[3][tile][row] + column};
                                floats best = maximum(pixels, argmax + to + lane);
                                memcpy(maxima + lane, &best, sizeof best);
                            }
                            store_row(output + to, BLOCK, maxima, maxima + TILE);
                        }
                    }
                stream_fence();
            }
        tiles_end();
    }
}

/* The sums of a row of taps (tiles 0 to 2) += those of a row of pixels: of one tile of output channels (a) and one of input channels (b).
   Few tiles are used: where a core runs two threads, they share the registers behind them (LOG.md). */
static inline void add_row(int64_t width, const uint16_t *a, const uint16_t *b) {
    for (int64_t x = 0; x < width; x++, a += TILE_VALUES, b += TILE_VALUES) {
        tile_load(3, a, 64);
        if (x) {
            tile_load(4, b - TILE_VALUES, 64);
            tile_dot(0, 3, 4);
        }
        tile_load(4, b, 64);
        tile_dot(1, 3, 4);
        if (x + 1 < width) {
            tile_load(4, b + TILE_VALUES, 64);
            tile_dot(2, 3, 4);
        }
    }
}

/* sums: fp32 (out_channels, 9, channels rounded up to a multiple of BLOCK), the gradient of the weight; without meaning after the last
   channel. Operands of `chunk` images, a multiple of TILE_DEPTH, and `band` rows are laid out at once, in scratch: bf16, chunk * width *
   (band + 2 rows of the rounded channels, band rows of the output channels). Output channels are a multiple of BLOCK. With argmax,
   grad_output is that of the maxima. */
void weight_gradient(int64_t images, int64_t height, int64_t width, int64_t pitch, int64_t channels, int64_t out_channels,
                     const uint16_t *input, const uint16_t *grad_output, const uint8_t *argmax, float *sums, int64_t chunk, int64_t band,
                     uint16_t *scratch, int64_t threads) {
    int64_t inner = round_up(channels), in_tiles = inner / TILE, out_tiles = out_channels / TILE;
    uint16_t *paired = scratch, *transposed = scratch + chunk * (band + 2) * width * inner;
#pragma omp parallel num_threads(threads)
    {
        tile_sums spare __attribute__((aligned(64)));
        tiles_begin();
        for (int64_t start = 0; start < images; start += chunk)
            for (int64_t top = 0; top < height; top += band) {
                int64_t bottom = top + band < height ? top + band : height;
                int64_t above = top ? top - 1 : 0, below = bottom < height ? bottom + 1 : height; /* rows of the input */
                int64_t steps = ((images - start < chunk ? images - start : chunk) + TILE_DEPTH - 1) / TILE_DEPTH;
                int64_t in_pixels = (below - above) * width, out_pixels = (bottom - top) * width;
                int64_t in_array = steps * in_pixels * TILE_VALUES, out_array = steps * out_pixels * TILE_VALUES; /* of TILE channels */
#pragma omp for schedule(static) nowait
                for (int64_t item = 0; item < steps * in_pixels; item++) {
                    int64_t pixel = above * width + item % in_pixels, first = start + item / in_pixels * TILE_DEPTH;
                    for (int64_t c = 0; c < channels; c += BLOCK) {
                        const uint16_t *rows[TILE_DEPTH];
                        for (int i = 0; i < TILE_DEPTH; i++)
                            rows[i] = first + i < images ? input + (pixel * images + first + i) * pitch + c : zeros;
                        pair_images(rows, paired + c / TILE * in_array + item * TILE_VALUES, in_array);
                    }
                }
#pragma omp for schedule(static) collapse(2)
                for (int64_t out = 0; out < out_tiles; out++) /* by the thread that multiplies it below, as far as tiles divide evenly */
                    for (int64_t item = 0; item < steps * out_pixels; item++) {
                        int64_t y = top + item % out_pixels / width, x = item % width, first = start + item / out_pixels * TILE_DEPTH;
                        int is_kept = !argmax || (y / 2 < height / 2 && x / 2 < width / 2);
                        int64_t from = (argmax ? y / 2 * (width / 2) + x / 2 : y * width + x) * images + first;
                        half_values rows[TILE_DEPTH];
                        for (int i = 0; i < TILE_DEPTH; i++) {
                            int64_t row = (from + i) * out_channels + out * TILE;
                            if (!is_kept || first + i >= images)
                                rows[i] = (half_values){0};
                            else if (argmax)
                                rows[i] = load_if(grad_output + row, argmax + row, y % 2 * 2 + x % 2);
                            else
                                memcpy(&rows[i], grad_output + row, sizeof rows[i]);
                        }
                        transpose(rows, transposed + out * out_array + item * TILE_VALUES);
                    }
                MEMORY_BARRIER;
#pragma omp for schedule(static)
                for (int64_t unit = 0; unit < out_tiles * in_tiles * 3; unit++) {
                    int64_t row = unit % 3, in = unit / 3 % in_tiles, out = unit / 3 / in_tiles, stride = 9 * inner * sizeof *sums;
                    float *taps = sums + (out * TILE * 9 + row * 3) * inner + in * TILE;
                    if (start || top) {
                        tile_load(0, taps, stride);
                        tile_load(1, taps + inner, stride);
                        tile_load(2, taps + 2 * inner, stride);
                    } else {
                        tile_zero(0);
                        tile_zero(1);
                        tile_zero(2);
                    }
                    for (int64_t step = 0; step < steps; step++)
                        for (int64_t y = top; y < bottom; y++)
                            if (y + row > 0 && y + row <= height) {
                                add_row(width, transposed + out * out_array + (step * out_pixels + (y - top) * width) * TILE_VALUES,
                                        paired + in * in_array + (step * in_pixels + (y + row - 1 - above) * width) * TILE_VALUES);
                                tile_store(3, spare, 64); /* as in multiply */
                            }
                    tile_store(0, taps, stride);
                    tile_store(1, taps + inner, stride);
                    tile_store(2, taps + 2 * inner, stride);
                    MEMORY_BARRIER;
                }
            }
        tiles_end();
    }
}
