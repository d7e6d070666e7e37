/* A 3x3 convolution with padding 1 and 2x2 max pooling in one, for kernels/conv_pool.py: the feature map in between, four times as
   large, is never written. Computes the gradient of the filters, not of the input. Feature maps are bf16, channels last: a multiple
   of TILE_ROWS in, of PANEL_OUTPUTS out. An odd last row or column is left out. */
#include "bf16.h"

#define PANEL_OUTPUTS 32
#define WINDOWS 3 /* side by side: their sums by PANEL_OUTPUTS channels fill the registers */
#define STRIPE 3  /* rows of windows whose gradient is unpooled at once */
#define BATCH_PARTS 64  /* of a batch, for any number of threads, so that sums do not depend on it */

/* Width of a zero-padded map, wide enough for whole WINDOWS. */
static int64_t padded_width(int64_t width) {
    int64_t covered = (width / 2 + WINDOWS - 1) / WINDOWS * WINDOWS * 2;
    return (covered > width ? covered : width) + 2;
}

static void pad(int64_t height, int64_t width, int64_t channels, const uint16_t *map, uint16_t *padded) {
    int64_t wide = padded_width(width);
    memset(padded, 0, sizeof *padded * (height + 2) * wide * channels);
    for (int64_t y = 0; y < height; y++)
        memcpy(padded + ((y + 1) * wide + 1) * channels, map + y * width * channels, sizeof *map * width * channels);
}

INLINE __mmask16 is_more(__m512 values, __m512 best) { /* NaN is the maximum */
    return _mm512_cmp_ps_mask(values, best, _CMP_GT_OQ) | _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
}

/* The maximum of four pixels and its index: the first of equal ones. */
INLINE float32x32 maximum(float32x32 pixels[4], uint8_t *indices) {
    float32x32 best = pixels[0];
    __m512i low = _mm512_setzero_si512(), high = low;
    for (int index = 1; index < 4; index++) {
        __mmask16 is_low = is_more(pixels[index].low, best.low), is_high = is_more(pixels[index].high, best.high);
        best.low = _mm512_mask_mov_ps(best.low, is_low, pixels[index].low);
        best.high = _mm512_mask_mov_ps(best.high, is_high, pixels[index].high);
        low = _mm512_mask_mov_epi32(low, is_low, _mm512_set1_epi32(index));
        high = _mm512_mask_mov_epi32(high, is_high, _mm512_set1_epi32(index));
    }
    _mm_storeu_si128((void *)indices, _mm512_cvtepi32_epi8(low));
    _mm_storeu_si128((void *)(indices + PANEL_OUTPUTS / 2), _mm512_cvtepi32_epi8(high));
    return best;
}

/* Two rows of pixels, of WINDOWS windows, by one panel of filters. */
INLINE void convolve(int64_t line, int64_t channels, const uint16_t *padded, const uint16_t *panel, float32x32 sums[2][2 * WINDOWS]) {
#pragma GCC unroll 2
    for (int y = 0; y < 2; y++)
#pragma GCC unroll 6
        for (int x = 0; x < 2 * WINDOWS; x++) sums[y][x] = zero();
    for (int tap = 0; tap < 3; tap++, padded += line)
        for (int i = 0; i < 3 * channels; i += 2, panel += 2 * PANEL_OUTPUTS) { /* three pixels in a row */
            __m512bh low = (__m512bh)_mm512_loadu_si512(panel), high = (__m512bh)_mm512_loadu_si512(panel + PANEL_OUTPUTS);
#pragma GCC unroll 2
            for (int y = 0; y < 2; y++)
#pragma GCC unroll 6
                for (int x = 0; x < 2 * WINDOWS; x++) {
                    __m512bh pair = broadcast_pair(padded + y * line + x * channels + i);
                    sums[y][x].low = _mm512_dpbf16_ps(sums[y][x].low, pair, low);
                    sums[y][x].high = _mm512_dpbf16_ps(sums[y][x].high, pair, high);
                }
        }
}

/* The maxima of maps convolved with filters, and their indices in the window (row * 2 + column). The filters are stored in panels of
   PANEL_OUTPUTS outputs, each by tap and channel pair: one load holds a pair of sixteen outputs. */
void convolve_and_pool(int64_t images, int64_t height, int64_t width, int64_t channels, int64_t outputs, const uint16_t *maps,
                       const uint16_t *filters, uint16_t *maxima, uint8_t *indices) {
    int64_t rows = height / 2, columns = width / 2, line = padded_width(width) * channels;
#pragma omp parallel for schedule(static)
    for (int64_t image = 0; image < images; image++) {
        uint16_t padded[(height + 2) * line];
        pad(height, width, channels, maps + image * height * width * channels, padded);
        for (int64_t panel = 0; panel < outputs; panel += PANEL_OUTPUTS)
            for (int64_t row = 0; row < rows; row++)
                for (int64_t column = 0; column < columns; column += WINDOWS) {
                    const uint16_t *from = padded + row * 2 * line + column * 2 * channels;
                    float32x32 sums[2][2 * WINDOWS];
                    convolve(line, channels, from, filters + panel * 9 * channels, sums);
#pragma GCC unroll 3
                    for (int w = 0; w < WINDOWS; w++) {
                        if (column + w >= columns) break;
                        float32x32 pixels[4] = {sums[0][2 * w], sums[0][2 * w + 1], sums[1][2 * w], sums[1][2 * w + 1]};
                        int64_t to = ((image * rows + row) * columns + column + w) * outputs + panel;
                        _mm512_stream_si512((void *)(maxima + to), to_bf16(maximum(pixels, indices + to)));
                    }
                }
        _mm_sfence();
    }
}

/* Pairs of neighbouring pixels: of each row those that start at an even pixel, then those that start at an odd one. */
static void pair_pixels(int64_t height, int64_t columns, int64_t line, int64_t channels, const uint16_t *padded, uint32_t *pairs) {
    for (int64_t y = 0; y < height + 2; y++)
        for (int odd = 0; odd < 2; odd++)
            for (int64_t column = 0; column <= columns - odd; column++) {
                const uint16_t *pixel = padded + y * line + (column * 2 + odd) * channels;
                uint32_t *pair = pairs + (((y * 2) + odd) * (columns + 1) + column) * channels;
                for (int64_t i = 0; i < channels; i += TILE_ROWS) {
                    __m256i first = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(pixel + i)));
                    __m256i second = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(pixel + channels + i)));
                    _mm256_storeu_si256((void *)(pair + i), _mm256_or_si256(first, _mm256_slli_epi32(second, 16)));
                }
            }
}

/* Unpools the gradient of a row of windows to its two rows of pixels, in pairs: 0 except at the maxima. */
static void unpool(int64_t columns, int64_t outputs, const uint16_t *grad_output, const uint8_t *indices, uint32_t *pairs) {
    for (int64_t i = 0; i < columns * outputs; i += 16) {
        __m512i values = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(grad_output + i)));
        __m512i index = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)(indices + i)));
        __m512i pair = _mm512_sllv_epi32(values, _mm512_slli_epi32(_mm512_and_si512(index, _mm512_set1_epi32(1)), 4));
        __mmask16 is_below = _mm512_cmpgt_epi32_mask(index, _mm512_set1_epi32(1));
        _mm512_storeu_si512(pairs + i, _mm512_maskz_mov_epi32(~is_below, pair));
        _mm512_storeu_si512(pairs + columns * outputs + i, _mm512_maskz_mov_epi32(is_below, pair));
    }
}

/* sums (BATCH_PARTS, 9, channels, outputs): the gradient of the filters for each part of the batch. */
void weight_gradient(int64_t images, int64_t height, int64_t width, int64_t channels, int64_t outputs, const uint16_t *maps,
                         const uint16_t *grad_output, const uint8_t *indices, float *sums) {
    int64_t rows = height / 2, columns = width / 2, line = padded_width(width) * channels;
#pragma omp parallel for schedule(static)
    for (int64_t part = 0; part < BATCH_PARTS; part++) {
        uint16_t padded[(height + 2) * line];
        uint32_t pairs[(height + 2) * 2 * (columns + 1) * channels], grad_pairs[STRIPE * 2 * columns * outputs];
        float *part_sums = sums + part * 9 * channels * outputs;
        memset(part_sums, 0, sizeof *sums * 9 * channels * outputs);
        for (int64_t image = images * part / BATCH_PARTS; image < images * (part + 1) / BATCH_PARTS; image++) {
            pad(height, width, channels, maps + image * height * width * channels, padded);
            pair_pixels(height, columns, line, channels, padded, pairs);
            for (int64_t first = 0; first < rows; first += STRIPE) {
                int64_t count = rows - first < STRIPE ? rows - first : STRIPE;
                for (int64_t row = 0; row < count; row++) {
                    int64_t from = (image * rows + first + row) * columns * outputs;
                    unpool(columns, outputs, grad_output + from, indices + from, grad_pairs + row * 2 * columns * outputs);
                }
                for (int64_t block = 0; block < 9 * channels; block += TILE_ROWS)
                    for (int64_t panel = 0; panel < outputs; panel += PANEL_OUTPUTS) {
                        int64_t tap = block / channels, down = tap / 3, across = tap % 3;
                        float *sum = part_sums + block * outputs + panel;
                        float32x32 tile[TILE_ROWS];
                        read_tile(sum, outputs, tile);
                        for (int64_t y = 0; y < 2 * count; y++) {
                            int64_t pair = ((first * 2 + y + down) * 2 + across % 2) * (columns + 1) + across / 2;
                            add_products(columns, pairs + pair * channels + block % channels, channels,
                                         grad_pairs + y * columns * outputs + panel, outputs, tile);
                        }
                        write_tile(tile, outputs, sum);
                    }
            }
        }
    }
}
