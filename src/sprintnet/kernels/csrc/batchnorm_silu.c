/* Batch norm with SiLU, for batchnorm_silu.py. Feature maps are bf16, channels_last, seen as rows (pixels) of `channels` values, a
   multiple of FP32_LANES.

   z = x * scale + shift for each channel; y = z * sigmoid(z). */
#include "bf16.h"

INLINE __m512 load(const uint16_t *from) { return to_fp32(_mm256_loadu_si256((const void *)from)); }

INLINE void store(uint16_t *to, __m512 values) { _mm256_store_si256((void *)to, (__m256i)_mm512_cvtneps_pbh(values)); }

/* 1 / (1 + exp(-z)), to 14 bits; bf16 has 8 */
INLINE __m512 sigmoid(__m512 z) {
    __m512 exponent = _mm512_mul_ps(z, _mm512_set1_ps(-1.44269504f)); /* of 2 */
    exponent = _mm512_max_ps(_mm512_min_ps(exponent, _mm512_set1_ps(126)), _mm512_set1_ps(-126));
    __m512 integer = _mm512_roundscale_ps(exponent, 0), fraction = _mm512_sub_ps(exponent, integer);
    __m512 power = _mm512_set1_ps(1.33336e-3f); /* Taylor series of 2^fraction, |fraction| <= 1/2 */
    power = _mm512_fmadd_ps(power, fraction, _mm512_set1_ps(9.61813e-3f));
    power = _mm512_fmadd_ps(power, fraction, _mm512_set1_ps(5.55041e-2f));
    power = _mm512_fmadd_ps(power, fraction, _mm512_set1_ps(2.40226507e-1f));
    power = _mm512_fmadd_ps(power, fraction, _mm512_set1_ps(6.93147181e-1f));
    power = _mm512_fmadd_ps(power, fraction, _mm512_set1_ps(1));
    return _mm512_rcp14_ps(_mm512_add_ps(_mm512_scalef_ps(power, integer), _mm512_set1_ps(1)));
}

/* gradient w.r.t. z: grad_y * dy/dz */
INLINE __m512 silu_gradient(__m512 z, __m512 grad_y) {
    __m512 s = sigmoid(z);
    __m512 slope = _mm512_fmadd_ps(z, _mm512_fnmadd_ps(s, s, s), s); /* s + z * s * (1 - s) */
    return _mm512_mul_ps(grad_y, slope);
}

/* sums (BATCH_PARTS, 2, channels) of x - (first row of x), and of its square */
void moments(int64_t rows, int64_t channels, const uint16_t *x, float *sums) {
#pragma omp parallel for schedule(static)
    for (int part = 0; part < BATCH_PARTS; part++)
        for (int channel = 0; channel < channels; channel += FP32_LANES) {
            __m512 first = load(x + channel), sum = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
            for (int64_t row = rows * part / BATCH_PARTS; row < rows * (part + 1) / BATCH_PARTS; row++) {
                __m512 value = _mm512_sub_ps(load(x + row * channels + channel), first);
                sum = _mm512_add_ps(sum, value);
                squares = _mm512_fmadd_ps(value, value, squares);
            }
            _mm512_storeu_ps(sums + (2 * part) * channels + channel, sum);
            _mm512_storeu_ps(sums + (2 * part + 1) * channels + channel, squares);
        }
}

void forward(int64_t rows, int64_t channels, const uint16_t *x, const float *scale, const float *shift, uint16_t *y) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int channel = 0; channel < channels; channel += FP32_LANES) {
            int64_t at = row * channels + channel;
            __m512 z = _mm512_fmadd_ps(load(x + at), _mm512_loadu_ps(scale + channel), _mm512_loadu_ps(shift + channel));
            store(y + at, _mm512_mul_ps(z, sigmoid(z)));
        }
}

/* sums (BATCH_PARTS, 2, channels) of grad_z, and of grad_z * z */
void gradient_moments(int64_t rows, int64_t channels, const uint16_t *x, const float *scale, const float *shift,
                      const uint16_t *grad_y, float *sums) {
#pragma omp parallel for schedule(static)
    for (int part = 0; part < BATCH_PARTS; part++)
        for (int channel = 0; channel < channels; channel += FP32_LANES) {
            __m512 sum = _mm512_setzero_ps(), products = _mm512_setzero_ps();
            __m512 scales = _mm512_loadu_ps(scale + channel), shifts = _mm512_loadu_ps(shift + channel);
            for (int64_t row = rows * part / BATCH_PARTS; row < rows * (part + 1) / BATCH_PARTS; row++) {
                int64_t at = row * channels + channel;
                __m512 z = _mm512_fmadd_ps(load(x + at), scales, shifts), grad_z = silu_gradient(z, load(grad_y + at));
                sum = _mm512_add_ps(sum, grad_z);
                products = _mm512_fmadd_ps(grad_z, z, products);
            }
            _mm512_storeu_ps(sums + (2 * part) * channels + channel, sum);
            _mm512_storeu_ps(sums + (2 * part + 1) * channels + channel, products);
        }
}

/* grad_x = scale * grad_z + slope * z + offset */
void backward(int64_t rows, int64_t channels, const uint16_t *x, const float *scale, const float *shift, const uint16_t *grad_y,
              const float *slope, const float *offset, uint16_t *grad_x) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int channel = 0; channel < channels; channel += FP32_LANES) {
            int64_t at = row * channels + channel;
            __m512 scales = _mm512_loadu_ps(scale + channel);
            __m512 z = _mm512_fmadd_ps(load(x + at), scales, _mm512_loadu_ps(shift + channel));
            __m512 rest = _mm512_fmadd_ps(z, _mm512_loadu_ps(slope + channel), _mm512_loadu_ps(offset + channel));
            store(grad_x + at, _mm512_fmadd_ps(silu_gradient(z, load(grad_y + at)), scales, rest));
        }
}
