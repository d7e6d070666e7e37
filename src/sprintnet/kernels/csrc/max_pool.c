/* 2x2 max pooling and its gradient, for kernels/max_pool.py. Feature maps are bf16, channels last, the channels a multiple of POOL_CHANNELS. An
   odd last row or column is left out. */
#include "bf16.h"

#define POOL_CHANNELS 32

INLINE __m512i load(const uint16_t *from) { return _mm512_loadu_si512(from); }

/* bf16 as integers in the same order: all bits but the sign are inverted where the sign is set; NaN is the largest */
INLINE __m512i sortable(__m512i values) {
    __m512i magnitude = _mm512_and_si512(values, _mm512_set1_epi16(0x7fff));
    __mmask32 is_none = _mm512_cmpgt_epi16_mask(magnitude, _mm512_set1_epi16(0x7f80));
    __m512i turned = _mm512_xor_si512(values, _mm512_srli_epi16(_mm512_srai_epi16(values, 15), 1));
    return _mm512_mask_mov_epi16(turned, is_none, _mm512_set1_epi16(0x7fff));
}

/* The maxima of maps, and their indices in the window (row * 2 + column): the first of equal ones (0 is larger than -0). */
void max_pool(int64_t images, int64_t height, int64_t width, int64_t channels, const uint16_t *maps, uint16_t *maxima, uint8_t *indices) {
    int rows = height / 2, columns = width / 2;
#pragma omp parallel for schedule(static)
    for (int64_t line = 0; line < images * rows; line++)
        for (int column = 0; column < columns; column++) {
            const uint16_t *pixel = maps + ((line / rows * height + line % rows * 2) * width + column * 2) * channels;
            int64_t to = (line * columns + column) * channels;
            for (int channel = 0; channel < channels; channel += POOL_CHANNELS) {
                __m512i best = sortable(load(pixel + channel)), index = _mm512_setzero_si512();
                for (int other = 1; other < 4; other++) {
                    __m512i values = sortable(load(pixel + (other / 2 * width + other % 2) * channels + channel));
                    __mmask32 is_more = _mm512_cmpgt_epi16_mask(values, best);
                    best = _mm512_mask_mov_epi16(best, is_more, values);
                    index = _mm512_mask_mov_epi16(index, is_more, _mm512_set1_epi16(other));
                }
                _mm512_store_si512((void *)(maxima + to + channel), sortable(best));
                _mm256_store_si256((void *)(indices + to + channel), _mm512_cvtepi16_epi8(index));
            }
        }
}

/* The gradient of the maps: 0 except at the maxima. */
void max_pool_backward(int64_t images, int64_t height, int64_t width, int64_t channels, const uint16_t *maxima, const uint8_t *indices,
             uint16_t *maps) {
    int rows = height / 2, columns = width / 2;
#pragma omp parallel for schedule(static)
    for (int64_t line = 0; line < images * height; line++) {
        int row = line % height / 2;
        for (int x = 0; x < width; x++) {
            int64_t from = ((line / height * rows + row) * columns + x / 2) * channels;
            int is_covered = row < rows && x / 2 < columns;
            for (int channel = 0; channel < channels; channel += POOL_CHANNELS) {
                __m512i values = _mm512_setzero_si512();
                if (is_covered) {
                    __m256i index = _mm256_load_si256((const void *)(indices + from + channel));
                    __mmask32 is_here = _mm256_cmpeq_epi8_mask(index, _mm256_set1_epi8(line % height % 2 * 2 + x % 2));
                    values = _mm512_maskz_mov_epi16(is_here, load(maxima + from + channel));
                }
                _mm512_stream_si512((void *)(maps + (line * width + x) * channels + channel), values);
            }
        }
        _mm_sfence();
    }
}
