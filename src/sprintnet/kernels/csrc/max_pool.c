/* 2x2 max pooling and its gradient, for max_pool.py. Feature maps are bf16, channels_last, with a multiple of BF16_LANES channels. A last
   odd row or column is dropped. */
#include "bf16.h"

INLINE __m512i load(const uint16_t *from) { return _mm512_loadu_si512(from); }

/* Maps bf16 values to integers in the same order, NaN as the largest: all bits but the sign are inverted where the sign is set. Its own
   inverse. */
INLINE __m512i to_ordered(__m512i values) {
    __m512i magnitude = _mm512_and_si512(values, _mm512_set1_epi16(0x7fff));
    __mmask32 is_nan = _mm512_cmpgt_epi16_mask(magnitude, _mm512_set1_epi16(0x7f80));
    __m512i ordered = _mm512_xor_si512(values, _mm512_srli_epi16(_mm512_srai_epi16(values, 15), 1));
    return _mm512_mask_mov_epi16(ordered, is_nan, _mm512_set1_epi16(0x7fff));
}

/* output: the maxima; argmax: the pixel of its 2x2 window that each comes from (row * 2 + column), the first of equal ones
   (0 is greater than -0). */
void max_pool(int64_t images, int64_t height, int64_t width, int64_t channels, const uint16_t *input, uint16_t *output, uint8_t *argmax) {
    int rows = height / 2, columns = width / 2;
#pragma omp parallel for schedule(static) collapse(2)
    for (int64_t line = 0; line < images * rows; line++)
        for (int column = 0; column < columns; column++) {
            const uint16_t *window = input + ((line / rows * height + line % rows * 2) * width + column * 2) * channels;
            int64_t to = (line * columns + column) * channels;
            for (int channel = 0; channel < channels; channel += BF16_LANES) {
                __m512i best = to_ordered(load(window + channel)), place = _mm512_setzero_si512();
                for (int pixel = 1; pixel < 4; pixel++) {
                    __m512i values = to_ordered(load(window + (pixel / 2 * width + pixel % 2) * channels + channel));
                    __mmask32 is_greater = _mm512_cmpgt_epi16_mask(values, best);
                    best = _mm512_mask_mov_epi16(best, is_greater, values);
                    place = _mm512_mask_mov_epi16(place, is_greater, _mm512_set1_epi16(pixel));
                }
                _mm512_store_si512((void *)(output + to + channel), to_ordered(best));
                _mm256_store_si256((void *)(argmax + to + channel), _mm512_cvtepi16_epi8(place));
            }
        }
}

/* grad_input is grad_output where a maximum came from, and 0 elsewhere. */
void max_pool_backward(int64_t images, int64_t height, int64_t width, int64_t channels, const uint16_t *grad_output, const uint8_t *argmax,
                       uint16_t *grad_input) {
    int rows = height / 2, columns = width / 2;
#pragma omp parallel
    {
#pragma omp for schedule(static) collapse(2)
        for (int64_t line = 0; line < images * height; line++)
            for (int x = 0; x < width; x++) {
                int row = line % height / 2;
                int64_t from = ((line / height * rows + row) * columns + x / 2) * channels;
                int is_in_window = row < rows && x / 2 < columns;
                for (int channel = 0; channel < channels; channel += BF16_LANES) {
                    __m512i values = _mm512_setzero_si512();
                    if (is_in_window) {
                        __m256i place = _mm256_load_si256((const void *)(argmax + from + channel));
                        __mmask32 is_here = _mm256_cmpeq_epi8_mask(place, _mm256_set1_epi8(line % height % 2 * 2 + x % 2));
                        values = _mm512_maskz_mov_epi16(is_here, load(grad_output + from + channel));
                    }
                    _mm512_stream_si512((void *)(grad_input + (line * width + x) * channels + channel), values);
                }
            }
        _mm_sfence();
    }
}
