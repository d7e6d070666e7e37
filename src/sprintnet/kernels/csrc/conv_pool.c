/* A 3x3 convolution with padding 1 and 2x2 max pooling, for conv_pool.py: the feature map between them, four times as large, is never
   written. Computes the gradient w.r.t. the weight, none w.r.t. the input. Feature maps are bf16, channels_last, with a multiple of
   BLOCK_ROWS input channels and of BF16_LANES output channels. A last odd row or column is dropped. */
#include "bf16.h"

#define WINDOWS 3 /* pooling windows in a row whose sums fill the registers, with BF16_LANES of their channels */
#define STRIPE 3  /* rows of windows whose gradient is unpooled at once */

/* Pixels in a row of a zero-padded image, wide enough for a multiple of WINDOWS. */
static int64_t padded_width(int64_t width) {
    int64_t covered = (width / 2 + WINDOWS - 1) / WINDOWS * WINDOWS * 2;
    return (covered > width ? covered : width) + 2;
}

static void pad(int64_t height, int64_t width, int64_t channels, const uint16_t *image, uint16_t *padded) {
    int64_t wide = padded_width(width);
    memset(padded, 0, sizeof *padded * (height + 2) * wide * channels);
    for (int64_t y = 0; y < height; y++)
        memcpy(padded + ((y + 1) * wide + 1) * channels, image + y * width * channels, sizeof *image * width * channels);
}

INLINE __mmask16 is_greater(__m512 values, __m512 best) {
    return _mm512_cmp_ps_mask(values, best, _CMP_GT_OQ) | _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
}

/* The maximum of four pixels and its index, the first of equal ones; NaN is the largest. */
INLINE floats maximum(floats pixels[4], uint8_t *argmax) {
    floats best = pixels[0];
    __m512i low = _mm512_setzero_si512(), high = low;
    for (int place = 1; place < 4; place++) {
        __mmask16 is_low = is_greater(pixels[place].low, best.low), is_high = is_greater(pixels[place].high, best.high);
        best.low = _mm512_mask_mov_ps(best.low, is_low, pixels[place].low);
        best.high = _mm512_mask_mov_ps(best.high, is_high, pixels[place].high);
        low = _mm512_mask_mov_epi32(low, is_low, _mm512_set1_epi32(place));
        high = _mm512_mask_mov_epi32(high, is_high, _mm512_set1_epi32(place));
    }
    _mm_storeu_si128((void *)argmax, _mm512_cvtepi32_epi8(low));
    _mm_storeu_si128((void *)(argmax + BF16_LANES / 2), _mm512_cvtepi32_epi8(high));
    return best;
}

/* Convolves the two rows of pixels of WINDOWS windows with one panel of filters. */
INLINE void convolve(int64_t row_size, int64_t channels, const uint16_t *padded, const uint16_t *panel, floats sums[2][2 * WINDOWS]) {
#pragma GCC unroll 2
    for (int y = 0; y < 2; y++)
#pragma GCC unroll 6
        for (int x = 0; x < 2 * WINDOWS; x++) sums[y][x] = zeros();
    for (int tap = 0; tap < 3; tap++, padded += row_size)
        for (int i = 0; i < 3 * channels; i += 2, panel += 2 * BF16_LANES) { /* three neighbouring pixels */
            __m512bh low = (__m512bh)_mm512_loadu_si512(panel), high = (__m512bh)_mm512_loadu_si512(panel + BF16_LANES);
#pragma GCC unroll 2
            for (int y = 0; y < 2; y++)
#pragma GCC unroll 6
                for (int x = 0; x < 2 * WINDOWS; x++) {
                    __m512bh pair = broadcast_pair(padded + y * row_size + x * channels + i);
                    sums[y][x].low = _mm512_dpbf16_ps(sums[y][x].low, pair, low);
                    sums[y][x].high = _mm512_dpbf16_ps(sums[y][x].high, pair, high);
                }
        }
}

/* output: the maxima of the convolved input; argmax: the pixel of its 2x2 window that each comes from (row * 2 + column).
   Filters are in panels of BF16_LANES output channels, in each panel ordered by tap, then by pair of input channels: one load holds a
   pair of 16 output channels. */
void conv_pool(int64_t images, int64_t height, int64_t width, int64_t channels, int64_t out_channels, const uint16_t *input,
               const uint16_t *filters, uint16_t *output, uint8_t *argmax) {
    int64_t rows = height / 2, columns = width / 2, row_size = padded_width(width) * channels;
#pragma omp parallel for schedule(static)
    for (int64_t image = 0; image < images; image++) {
        uint16_t padded[(height + 2) * row_size];
        pad(height, width, channels, input + image * height * width * channels, padded);
        for (int64_t panel = 0; panel < out_channels; panel += BF16_LANES)
            for (int64_t row = 0; row < rows; row++)
                for (int64_t column = 0; column < columns; column += WINDOWS) {
                    const uint16_t *from = padded + row * 2 * row_size + column * 2 * channels;
                    floats sums[2][2 * WINDOWS];
                    convolve(row_size, channels, from, filters + panel * 9 * channels, sums);
#pragma GCC unroll 3
                    for (int w = 0; w < WINDOWS; w++) {
                        if (column + w >= columns) break;
                        floats pixels[4] = {sums[0][2 * w], sums[0][2 * w + 1], sums[1][2 * w], sums[1][2 * w + 1]};
                        int64_t to = ((image * rows + row) * columns + column + w) * out_channels + panel;
                        _mm512_stream_si512((void *)(output + to), to_bf16(maximum(pixels, argmax + to)));
                    }
                }
        _mm_sfence();
    }
}

/* Packs neighbouring pixels into pairs, one pair an integer: of each row those that begin at an even pixel, then at an odd one. */
static void pair_pixels(int64_t height, int64_t columns, int64_t row_size, int64_t channels, const uint16_t *padded, uint32_t *pairs) {
    for (int64_t y = 0; y < height + 2; y++)
        for (int odd = 0; odd < 2; odd++)
            for (int64_t column = 0; column <= columns - odd; column++) {
                const uint16_t *pixel = padded + y * row_size + (column * 2 + odd) * channels;
                uint32_t *pair = pairs + (((y * 2) + odd) * (columns + 1) + column) * channels;
                for (int64_t i = 0; i < channels; i += BLOCK_ROWS) {
                    __m256i first = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(pixel + i)));
                    __m256i second = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(pixel + channels + i)));
                    _mm256_storeu_si256((void *)(pair + i), _mm256_or_si256(first, _mm256_slli_epi32(second, 16)));
                }
            }
}

/* The gradient of a row of windows as that of its two rows of pixels, in pairs: 0 except where a maximum came from. */
static void unpool(int64_t columns, int64_t out_channels, const uint16_t *grad_output, const uint8_t *argmax, uint32_t *pairs) {
    for (int64_t i = 0; i < columns * out_channels; i += 16) {
        __m512i values = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(grad_output + i)));
        __m512i place = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)(argmax + i)));
        __m512i pair = _mm512_sllv_epi32(values, _mm512_slli_epi32(_mm512_and_si512(place, _mm512_set1_epi32(1)), 4));
        __mmask16 is_below = _mm512_cmpgt_epi32_mask(place, _mm512_set1_epi32(1));
        _mm512_storeu_si512(pairs + i, _mm512_maskz_mov_epi32(~is_below, pair));
        _mm512_storeu_si512(pairs + columns * out_channels + i, _mm512_maskz_mov_epi32(is_below, pair));
    }
}

/* sums (BATCH_PARTS, 9, channels, out_channels): the gradient w.r.t. the weight by parts of the batch. */
void conv_pool_backward(int64_t images, int64_t height, int64_t width, int64_t channels, int64_t out_channels, const uint16_t *input,
                        const uint16_t *grad_output, const uint8_t *argmax, float *sums) {
    int64_t rows = height / 2, columns = width / 2, row_size = padded_width(width) * channels;
#pragma omp parallel for schedule(static)
    for (int64_t part = 0; part < BATCH_PARTS; part++) {
        uint16_t padded[(height + 2) * row_size];
        uint32_t pairs[(height + 2) * 2 * (columns + 1) * channels], grad_pairs[STRIPE * 2 * columns * out_channels];
        float *part_sums = sums + part * 9 * channels * out_channels;
        memset(part_sums, 0, sizeof *sums * 9 * channels * out_channels);
        for (int64_t image = images * part / BATCH_PARTS; image < images * (part + 1) / BATCH_PARTS; image++) {
            pad(height, width, channels, input + image * height * width * channels, padded);
            pair_pixels(height, columns, row_size, channels, padded, pairs);
            for (int64_t first = 0; first < rows; first += STRIPE) {
                int64_t count = rows - first < STRIPE ? rows - first : STRIPE;
                for (int64_t row = 0; row < count; row++) {
                    int64_t from = (image * rows + first + row) * columns * out_channels;
                    unpool(columns, out_channels, grad_output + from, argmax + from, grad_pairs + row * 2 * columns * out_channels);
                }
                for (int64_t block = 0; block < 9 * channels; block += BLOCK_ROWS)
                    for (int64_t panel = 0; panel < out_channels; panel += BF16_LANES) {
                        int64_t tap = block / channels, down = tap / 3, across = tap % 3;
                        float *sum = part_sums + block * out_channels + panel;
                        floats block_sums[BLOCK_ROWS];
                        load_block(sum, out_channels, block_sums);
                        for (int64_t y = 0; y < 2 * count; y++) {
                            int64_t pair = ((first * 2 + y + down) * 2 + across % 2) * (columns + 1) + across / 2;
                            multiply_add(columns, pairs + pair * channels + block % channels, channels,
                                         grad_pairs + y * columns * out_channels + panel, out_channels, block_sums);
                        }
                        store_block(block_sums, out_channels, sum);
                    }
            }
        }
    }
}
