/* Batch norm and SiLU in one, for kernels/batchnorm_silu.py. Feature maps are bf16 rows of pixels, channels last, a multiple of NORM_CHANNELS.

   z = x * scale + shift, by channel; y = z * sigmoid(z). Sums are over ROW_PARTS equal parts of the rows, for any number of threads, so that
   they do not depend on it. */
#include "bf16.h"

#define NORM_CHANNELS 16
#define ROW_PARTS 64

INLINE __m512 load(const uint16_t *from) { return to_float(_mm256_loadu_si256((const void *)from)); }

INLINE void store(uint16_t *to, __m512 values) { _mm256_store_si256((void *)to, (__m256i)_mm512_cvtneps_pbh(values)); }

/* 1 / (1 + exp(-z)) to 14 bits, more than bf16 has */
INLINE __m512 sigmoid(__m512 z) {
    __m512 power = _mm512_mul_ps(z, _mm512_set1_ps(-1.44269504f)); /* of 2 */
    power = _mm512_max_ps(_mm512_min_ps(power, _mm512_set1_ps(126)), _mm512_set1_ps(-126));
    __m512 whole = _mm512_roundscale_ps(power, 0), rest = _mm512_sub_ps(power, whole);
    __m512 value = _mm512_set1_ps(1.33336e-3f); /* Taylor's series of 2^rest, |rest| <= 1/2 */
    value = _mm512_fmadd_ps(value, rest, _mm512_set1_ps(9.61813e-3f));
    value = _mm512_fmadd_ps(value, rest, _mm512_set1_ps(5.55041e-2f));
    value = _mm512_fmadd_ps(value, rest, _mm512_set1_ps(2.40226507e-1f));
    value = _mm512_fmadd_ps(value, rest, _mm512_set1_ps(6.93147181e-1f));
    value = _mm512_fmadd_ps(value, rest, _mm512_set1_ps(1));
    return _mm512_rcp14_ps(_mm512_add_ps(_mm512_scalef_ps(value, whole), _mm512_set1_ps(1)));
}

/* grad_y * dy/dz */
INLINE __m512 gradient_of_z(__m512 z, __m512 grad_y) {
    __m512 s = sigmoid(z);
    __m512 slope = _mm512_fmadd_ps(z, _mm512_fnmadd_ps(s, s, s), s); /* s + z * s * (1 - s) */
    return _mm512_mul_ps(grad_y, slope);
}

/* sums (ROW_PARTS, 2, channels) of x - x's first row, and of its square */
void moments(int64_t rows, int64_t channels, const uint16_t *x, float *sums) {
#pragma omp parallel for schedule(static)
    for (int part = 0; part < ROW_PARTS; part++)
        for (int channel = 0; channel < channels; channel += NORM_CHANNELS) {
            __m512 first = load(x + channel), sum = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
            for (int64_t row = rows * part / ROW_PARTS; row < rows * (part + 1) / ROW_PARTS; row++) {
                __m512 value = _mm512_sub_ps(load(x + row * channels + channel), first);
                sum = _mm512_add_ps(sum, value);
                squares = _mm512_fmadd_ps(value, value, squares);
            }
            _mm512_storeu_ps(sums + (2 * part) * channels + channel, sum);
            _mm512_storeu_ps(sums + (2 * part + 1) * channels + channel, squares);
        }
}

void activate(int64_t rows, int64_t channels, const uint16_t *x, const float *scale, const float *shift, uint16_t *y) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int channel = 0; channel < channels; channel += NORM_CHANNELS) {
            int64_t at = row * channels + channel;
            __m512 z = _mm512_fmadd_ps(load(x + at), _mm512_loadu_ps(scale + channel), _mm512_loadu_ps(shift + channel));
            store(y + at, _mm512_mul_ps(z, sigmoid(z)));
        }
}

/* sums (ROW_PARTS, 2, channels) of the gradient of z, and of its product with z */
void gradient_moments(int64_t rows, int64_t channels, const uint16_t *x, const float *scale, const float *shift, const uint16_t *grad_y,
                      float *sums) {
#pragma omp parallel for schedule(static)
    for (int part = 0; part < ROW_PARTS; part++)
        for (int channel = 0; channel < channels; channel += NORM_CHANNELS) {
            __m512 sum = _mm512_setzero_ps(), products = _mm512_setzero_ps();
            __m512 scales = _mm512_loadu_ps(scale + channel), shifts = _mm512_loadu_ps(shift + channel);
            for (int64_t row = rows * part / ROW_PARTS; row < rows * (part + 1) / ROW_PARTS; row++) {
                int64_t at = row * channels + channel;
                __m512 z = _mm512_fmadd_ps(load(x + at), scales, shifts), gradient = gradient_of_z(z, load(grad_y + at));
                sum = _mm512_add_ps(sum, gradient);
                products = _mm512_fmadd_ps(gradient, z, products);
            }
            _mm512_storeu_ps(sums + (2 * part) * channels + channel, sum);
            _mm512_storeu_ps(sums + (2 * part + 1) * channels + channel, products);
        }
}

/* the gradient of x: scale * that of z + slope * z + offset */
void input_gradient(int64_t rows, int64_t channels, const uint16_t *x, const float *scale, const float *shift, const uint16_t *grad_y,
              const float *slope, const float *offset, uint16_t *grad_x) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int channel = 0; channel < channels; channel += NORM_CHANNELS) {
            int64_t at = row * channels + channel;
            __m512 scales = _mm512_loadu_ps(scale + channel);
            __m512 z = _mm512_fmadd_ps(load(x + at), scales, _mm512_loadu_ps(shift + channel));
            __m512 rest = _mm512_fmadd_ps(z, _mm512_loadu_ps(slope + channel), _mm512_loadu_ps(offset + channel));
            store(grad_x + at, _mm512_fmadd_ps(gradient_of_z(z, load(grad_y + at)), scales, rest));
        }
}
