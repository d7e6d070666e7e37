/* GELU of feature maps in bf16, from channels_last to HWNC (height, width, image, channel) with `pitch` values for an image, for gelu.py.
 */
#include <omp.h>

#include "vectors.h"

#define IMAGES 16 /* whose rows are written together, since they are neighbours in the output */

/* x * (1 + erf(x / sqrt(2))) / 2; erf by Abramowitz and Stegun, 7.1.26, to 1.5e-7 */
INLINE floats gelu(floats x) {
    floats magnitude = (floats)((integers)x & 0x7fffffff), t = 1 / (1 + 0.3275911f * 0.707106781f * magnitude);
    floats series = t * 1.061405429f - 1.453152027f;
    series = series * t + 1.421413741f;
    series = series * t - 0.284496736f;
    series = series * t + 0.254829592f;
    floats below = x * 0.5f * series * t * power_of_2(x * x * (-0.5f * 1.44269504f)); /* x * (1 - erf(|x| / sqrt(2))) / 2 */
    return (floats)choose(x < 0, (integers)below, (integers)(x - below));
}

/* rows: room for a row of an image and LANES more values, for each thread. */
void gelu_to_hwnc(int64_t images, int64_t height, int64_t width, int64_t channels, int64_t pitch, const uint16_t *input, uint16_t *rows,
                  uint16_t *output, int64_t threads) {
    int64_t length = width * channels, whole = length / LANES * LANES;
#pragma omp parallel num_threads(threads)
    {
        uint16_t *row = rows + omp_get_thread_num() * (length + LANES);
#pragma omp for schedule(static) collapse(2)
        for (int64_t start = 0; start < images; start += IMAGES)
            for (int64_t y = 0; y < height; y++)
                for (int64_t image = start; image < images && image < start + IMAGES; image++) {
                    const uint16_t *from = input + (image * height + y) * length;
                    for (int64_t i = 0; i < whole; i += LANES) store_bf16(row + i, gelu(load_bf16(from + i)));
                    uint16_t rest[LANES] = {0};
                    memcpy(rest, from + whole, (length - whole) * sizeof *rest);
                    store_bf16(row + whole, gelu(load_bf16(rest)));
                    for (int64_t x = 0; x < width; x++) {
                        uint16_t *to = output + ((y * width + x) * images + image) * pitch;
                        memcpy(to, row + x * channels, channels * sizeof *row);
                        memset(to + channels, 0, (pitch - channels) * sizeof *row);
                    }
                }
    }
}
