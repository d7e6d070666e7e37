/* 2x2 max pooling and its gradient in fp32, for max_pool.py, in the compiler's vector extensions. Feature maps are channels_last, with a
   multiple of LANES channels. A last odd row or column is dropped. */
#include "vectors.h"

/* indices: the pixel of its window that a maximum comes from (row * 2 + column), the first of equal ones; NaN is the largest. */
void max_pool(int64_t images, int64_t height, int64_t width, int64_t channels, const float *input, float *output, uint8_t *indices) {
    int64_t rows = height / 2, columns = width / 2;
#pragma omp parallel for schedule(static)
    for (int64_t line = 0; line < images * rows; line++)
        for (int64_t column = 0; column < columns; column++) {
            const float *window = input + ((line / rows * height + line % rows * 2) * width + 2 * column) * channels;
            int64_t to = (line * columns + column) * channels;
            for (int64_t channel = 0; channel < channels; channel += LANES) {
                const float *pixels[4] = {window + channel, window + channels + channel, window + width * channels + channel,
                                          window + (width + 1) * channels + channel};
                floats best = maximum(pixels, indices + to + channel);
                memcpy(output + to + channel, &best, sizeof best);
            }
        }
}

void max_pool_backward(int64_t images, int64_t height, int64_t width, int64_t channels, const float *grad_output,
                       const uint8_t *indices, float *grad_input) {
    int64_t rows = height / 2, columns = width / 2;
#pragma omp parallel for schedule(static)
    for (int64_t line = 0; line < images * height; line++) {
        int64_t image = line / height, y = line % height;
        float *to = grad_input + line * width * channels;
        for (int64_t x = 0; x < width; x++, to += channels) {
            if (y / 2 >= rows || x / 2 >= columns) {
                memset(to, 0, channels * sizeof *to);
                continue;
            }
            int64_t from = ((image * rows + y / 2) * columns + x / 2) * channels;
            int place = y % 2 * 2 + x % 2;
            for (int64_t c = 0; c < channels; c++) to[c] = indices[from + c] == place ? grad_output[from + c] : 0;
        }
    }
}
