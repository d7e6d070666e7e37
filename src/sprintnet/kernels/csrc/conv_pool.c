/* A 3x3 convolution with padding 1 and the maxima of 2x2 of its pixels, for models/pooled_convolution.py: the map between, four times
   as large, is never written. The gradient of the filters is computed, that of the maps is not. Maps of bf16 lie pixel after pixel,
   their channels last: a multiple of TILE_ROWS in, of LANES out. A last row or column without a partner is left out. */
#include "bf16.h"

#define LANES 32
#define WINDOWS 3 /* side by side, whose sums fill the registers, with LANES of their channels */
#define STRIPE 3  /* rows of windows whose gradient is laid out at once */
#define PARTS 64  /* of a batch, whatever the number of threads: so sums come out the same */

/* Pixels in a row of a map in a frame of zeros, wide enough for whole WINDOWS. */
static int64_t framed_width(int64_t width) {
    int64_t covered = (width / 2 + WINDOWS - 1) / WINDOWS * WINDOWS * 2;
    return (covered > width ? covered : width) + 2;
}

static void framed(int64_t height, int64_t width, int64_t channels, const uint16_t *map, uint16_t *frame) {
    int64_t wide = framed_width(width);
    memset(frame, 0, sizeof *frame * (height + 2) * wide * channels);
    for (int64_t y = 0; y < height; y++)
        memcpy(frame + ((y + 1) * wide + 1) * channels, map + y * width * channels, sizeof *map * width * channels);
}

INLINE __mmask16 is_more(__m512 values, __m512 best) { /* what is no number is most */
    return _mm512_cmp_ps_mask(values, best, _CMP_GT_OQ) | _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
}

/* Of four pixels the most, and where it was: the first of equal ones. */
INLINE floats most(floats pixels[4], uint8_t *places) {
    floats best = pixels[0];
    __m512i low = _mm512_setzero_si512(), high = low;
    for (int place = 1; place < 4; place++) {
        __mmask16 is_low = is_more(pixels[place].low, best.low), is_high = is_more(pixels[place].high, best.high);
        best.low = _mm512_mask_mov_ps(best.low, is_low, pixels[place].low);
        best.high = _mm512_mask_mov_ps(best.high, is_high, pixels[place].high);
        low = _mm512_mask_mov_epi32(low, is_low, _mm512_set1_epi32(place));
        high = _mm512_mask_mov_epi32(high, is_high, _mm512_set1_epi32(place));
    }
    _mm_storeu_si128((void *)places, _mm512_cvtepi32_epi8(low));
    _mm_storeu_si128((void *)(places + LANES / 2), _mm512_cvtepi32_epi8(high));
    return best;
}

/* Two rows of pixels, of WINDOWS windows, by one panel of filters. */
INLINE void convolve(int64_t line, int64_t channels, const uint16_t *frame, const uint16_t *panel, floats sums[2][2 * WINDOWS]) {
#pragma GCC unroll 2
    for (int y = 0; y < 2; y++)
#pragma GCC unroll 6
        for (int x = 0; x < 2 * WINDOWS; x++) sums[y][x] = zero();
    for (int tap = 0; tap < 3; tap++, frame += line)
        for (int i = 0; i < 3 * channels; i += 2, panel += 2 * LANES) { /* three pixels in a row */
            __m512bh low = (__m512bh)_mm512_loadu_si512(panel), high = (__m512bh)_mm512_loadu_si512(panel + LANES);
#pragma GCC unroll 2
            for (int y = 0; y < 2; y++)
#pragma GCC unroll 6
                for (int x = 0; x < 2 * WINDOWS; x++) {
                    __m512bh pair = pair_everywhere(frame + y * line + x * channels + i);
                    sums[y][x].low = _mm512_dpbf16_ps(sums[y][x].low, pair, low);
                    sums[y][x].high = _mm512_dpbf16_ps(sums[y][x].high, pair, high);
                }
        }
}

/* The maxima of maps convolved with filters, and in `places` which of its four pixels each comes from (row * 2 + column). The
   filters lie in panels of LANES outputs, in each of them tap after tap, channel pair after channel pair: one load holds a pair of
   sixteen outputs. */
void convolve_and_pool(int64_t images, int64_t height, int64_t width, int64_t channels, int64_t outputs, const uint16_t *maps,
                       const uint16_t *filters, uint16_t *maxima, uint8_t *places) {
    int64_t rows = height / 2, columns = width / 2, line = framed_width(width) * channels;
#pragma omp parallel for schedule(static)
    for (int64_t image = 0; image < images; image++) {
        uint16_t frame[(height + 2) * line];
        framed(height, width, channels, maps + image * height * width * channels, frame);
        for (int64_t panel = 0; panel < outputs; panel += LANES)
            for (int64_t row = 0; row < rows; row++)
                for (int64_t column = 0; column < columns; column += WINDOWS) {
                    const uint16_t *from = frame + row * 2 * line + column * 2 * channels;
                    floats sums[2][2 * WINDOWS];
                    convolve(line, channels, from, filters + panel * 9 * channels, sums);
#pragma GCC unroll 3
                    for (int w = 0; w < WINDOWS; w++) {
                        if (column + w >= columns) break;
                        floats pixels[4] = {sums[0][2 * w], sums[0][2 * w + 1], sums[1][2 * w], sums[1][2 * w + 1]};
                        int64_t to = ((image * rows + row) * columns + column + w) * outputs + panel;
                        _mm512_stream_si512((void *)(maxima + to), rounded(most(pixels, places + to)));
                    }
                }
        _mm_sfence();
    }
}

/* Pixels in pairs, a pair in a number: of each row those that begin with an even one, then those that begin with an odd one. */
static void pair_pixels(int64_t height, int64_t columns, int64_t line, int64_t channels, const uint16_t *frame, uint32_t *pairs) {
    for (int64_t y = 0; y < height + 2; y++)
        for (int odd = 0; odd < 2; odd++)
            for (int64_t column = 0; column <= columns - odd; column++) {
                const uint16_t *pixel = frame + y * line + (column * 2 + odd) * channels;
                uint32_t *pair = pairs + (((y * 2) + odd) * (columns + 1) + column) * channels;
                for (int64_t i = 0; i < channels; i += TILE_ROWS) {
                    __m256i first = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(pixel + i)));
                    __m256i second = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(pixel + channels + i)));
                    _mm256_storeu_si256((void *)(pair + i), _mm256_or_si256(first, _mm256_slli_epi32(second, 16)));
                }
            }
}

/* The gradient of a row of windows as that of its two rows of pixels, in pairs: 0 but where a maximum came from. */
static void unpool(int64_t columns, int64_t outputs, const uint16_t *of_maxima, const uint8_t *places, uint32_t *pairs) {
    for (int64_t i = 0; i < columns * outputs; i += 16) {
        __m512i values = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(of_maxima + i)));
        __m512i place = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)(places + i)));
        __m512i pair = _mm512_sllv_epi32(values, _mm512_slli_epi32(_mm512_and_si512(place, _mm512_set1_epi32(1)), 4));
        __mmask16 is_below = _mm512_cmpgt_epi32_mask(place, _mm512_set1_epi32(1));
        _mm512_storeu_si512(pairs + i, _mm512_maskz_mov_epi32(~is_below, pair));
        _mm512_storeu_si512(pairs + columns * outputs + i, _mm512_maskz_mov_epi32(is_below, pair));
    }
}

/* sums (PARTS, 9, channels, outputs): the gradient of the filters by parts of the batch. */
void gradient_of_filters(int64_t images, int64_t height, int64_t width, int64_t channels, int64_t outputs, const uint16_t *maps,
                         const uint16_t *of_maxima, const uint8_t *places, float *sums) {
    int64_t rows = height / 2, columns = width / 2, line = framed_width(width) * channels;
#pragma omp parallel for schedule(static)
    for (int64_t part = 0; part < PARTS; part++) {
        uint16_t frame[(height + 2) * line];
        uint32_t pairs[(height + 2) * 2 * (columns + 1) * channels], of_pairs[STRIPE * 2 * columns * outputs];
        float *of_part = sums + part * 9 * channels * outputs;
        memset(of_part, 0, sizeof *sums * 9 * channels * outputs);
        for (int64_t image = images * part / PARTS; image < images * (part + 1) / PARTS; image++) {
            framed(height, width, channels, maps + image * height * width * channels, frame);
            pair_pixels(height, columns, line, channels, frame, pairs);
            for (int64_t first = 0; first < rows; first += STRIPE) {
                int64_t count = rows - first < STRIPE ? rows - first : STRIPE;
                for (int64_t row = 0; row < count; row++) {
                    int64_t from = (image * rows + first + row) * columns * outputs;
                    unpool(columns, outputs, of_maxima + from, places + from, of_pairs + row * 2 * columns * outputs);
                }
                for (int64_t block = 0; block < 9 * channels; block += TILE_ROWS)
                    for (int64_t panel = 0; panel < outputs; panel += LANES) {
                        int64_t tap = block / channels, down = tap / 3, across = tap % 3;
                        float *sum = of_part + block * outputs + panel;
                        floats tile[TILE_ROWS];
                        read_tile(sum, outputs, tile);
                        for (int64_t y = 0; y < 2 * count; y++) {
                            int64_t pair = ((first * 2 + y + down) * 2 + across % 2) * (columns + 1) + across / 2;
                            add_products(columns, pairs + pair * channels + block % channels, channels,
                                         of_pairs + y * columns * outputs + panel, outputs, tile);
                        }
                        write_tile(tile, outputs, sum);
                    }
            }
        }
    }
}
