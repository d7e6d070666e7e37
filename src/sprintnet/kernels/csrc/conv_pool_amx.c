/* A 3x3 convolution with padding 1 and 2x2 max pooling in AMX, for conv_pool_amx.py: the feature map between them, four times as large, is
   never written. Feature maps are bf16, channels_last, with a multiple of BLOCK output channels. A last odd row or column is dropped.

   A zero-padded image is kept as two lines of pixels, its even and its odd rows, so that a tile of 16 pixels of each line holds the windows
   of 8 columns. The three neighbours of a pixel in a row lie side by side: 3 * channels values, in steps of TILE_DEPTH; the values after
   them meet zeros in the filters. */
#include "tiles.h"
#include "vectors.h"

#define BLOCK 32 /* output channels: two tiles */

typedef struct {
    int64_t pitch, positions, size; /* pixels of a padded row; of the output in a line; values of a line with what is read after it */
} geometry;

static geometry geometry_of(int64_t height, int64_t width, int64_t channels) {
    int64_t pitch = (width + 2) / 2 * 2, positions = height / 2 * pitch;
    return (geometry){pitch, positions, ((height / 2 + 2) * pitch + TILE + 2) * channels + 3 * TILE_DEPTH};
}

static void split_rows(const geometry *g, int64_t height, int64_t width, int64_t channels, const uint16_t *image, uint16_t *lines) {
    memset(lines, 0, 2 * g->size * sizeof *lines);
    for (int64_t y = 0; y < height; y++) {
        int64_t row = y + 1; /* padded */
        memcpy(lines + row % 2 * g->size + (row / 2 * g->pitch + 1) * channels, image + y * width * channels,
               width * channels * sizeof *image);
    }
}

/* output: the maxima of the convolved input; argmax: the pixel of its 2x2 window that each comes from (row * 2 + column). filters: bf16, for
   each TILE of output channels, row of taps and step a tile of TILE_DEPTH values of three pixels, in pairs, by TILE output channels. */
void conv_pool(int64_t images, int64_t height, int64_t width, int64_t channels, int64_t out_channels, const uint16_t *input,
               const uint16_t *filters, uint16_t *output, uint8_t *argmax, int64_t threads) {
    geometry g = geometry_of(height, width, channels);
    int64_t rows = height / 2, columns = width / 2, steps = (3 * channels + TILE_DEPTH - 1) / TILE_DEPTH;
    int64_t tile = TILE * TILE_DEPTH, stride = channels * sizeof *input;
#pragma omp parallel num_threads(threads)
    {
        tiles_begin();
        float sums[4][TILE][TILE] __attribute__((aligned(64)));
#pragma omp for schedule(static)
        for (int64_t image = 0; image < images; image++) {
            uint16_t lines[2 * g.size];
            split_rows(&g, height, width, channels, input + image * height * width * channels, lines);
            for (int64_t first = 0; first < g.positions; first += TILE)
                for (int64_t out = 0; out < out_channels; out += BLOCK) {
                    const uint16_t *filter = filters + out / TILE * 3 * steps * tile;
                    tile_zero(0);
                    tile_zero(1);
                    tile_zero(2);
                    tile_zero(3);
                    MEMORY_BARRIER;
                    for (int tap = 0; tap < 3; tap++) {
                        const uint16_t *even = lines + tap % 2 * g.size + (first + tap / 2 * g.pitch) * channels;
                        const uint16_t *odd = lines + (tap + 1) % 2 * g.size + (first + (tap + 1) / 2 * g.pitch) * channels;
                        for (int64_t step = 0; step < steps; step++, filter += tile) {
                            tile_load(4, even + step * TILE_DEPTH, stride);
                            tile_load(6, filter, 64);
                            tile_dot(0, 4, 6);
                            tile_load(7, filter + 3 * steps * tile, 64);
                            tile_dot(1, 4, 7);
                            tile_load(5, odd + step * TILE_DEPTH, stride);
                            tile_dot(2, 5, 6);
                            tile_dot(3, 5, 7);
                        }
                    }
                    tile_store(0, sums[0], 64);
                    tile_store(1, sums[1], 64);
                    tile_store(2, sums[2], 64);
                    tile_store(3, sums[3], 64);
                    MEMORY_BARRIER;
                    int64_t row = first / g.pitch, column = first % g.pitch / 2;
                    for (int pixel = 0; pixel < TILE; pixel += 2) {
                        if (column < columns && row < rows) {
                            int64_t to = ((image * rows + row) * columns + column) * out_channels + out;
                            for (int half = 0; half < 2; half++)
                                for (int lane = 0; lane < TILE; lane += LANES) {
                                    const float *pixels[4] = {sums[half][pixel] + lane, sums[half][pixel + 1] + lane,
                                                              sums[2 + half][pixel] + lane, sums[2 + half][pixel + 1] + lane};
                                    int64_t place = to + half * TILE + lane;
                                    store_bf16(output + place, maximum(pixels, argmax + place));
                                }
                        }
                        if (++column == g.pitch / 2) column = 0, row++;
                    }
                }
        }
        tiles_end();
    }
}
