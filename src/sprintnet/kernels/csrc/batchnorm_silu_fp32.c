/* Batch norm with SiLU in fp32, for batchnorm_silu.py: batchnorm_silu.c in the compiler's vector extensions. Feature maps are rows (pixels) of
   `channels` values, a multiple of LANES.

   z = x * scale + shift for each channel; y = z * sigmoid(z). */
#include "vectors.h"

#define BATCH_PARTS 64 /* of a sum over a batch: a fixed number, so that results do not depend on the number of threads */

INLINE void store(float *to, floats values) { memcpy(to, &values, sizeof values); }

/* 1 / (1 + exp(-z)) */
INLINE floats sigmoid(floats z) {
    const floats limit = (floats){0} + 126;
    floats exponent = z * -1.44269504f; /* of 2 */
    exponent = (floats)choose(exponent > limit, (integers)limit, (integers)exponent);
    exponent = (floats)choose(exponent < -limit, (integers)-limit, (integers)exponent);
    floats integer = (exponent + 12582912.0f) - 12582912.0f, fraction = exponent - integer; /* rounded: 3 * 2^22 has no bits below 1 */
    floats power = (floats){0} + 1.54035304e-4f; /* Taylor series of 2^fraction, |fraction| <= 1/2 */
    power = power * fraction + 1.33335581e-3f;
    power = power * fraction + 9.61812911e-3f;
    power = power * fraction + 5.55041087e-2f;
    power = power * fraction + 2.40226507e-1f;
    power = power * fraction + 6.93147181e-1f;
    power = power * fraction + 1;
    integers scale = (__builtin_convertvector(integer, integers) + 127) << 23;
    return 1 / (1 + power * (floats)scale);
}

/* gradient w.r.t. z: grad_y * dy/dz */
INLINE floats silu_gradient(floats z, floats grad_y) {
    floats s = sigmoid(z);
    return grad_y * (s + z * s * (1 - s));
}

/* sums (BATCH_PARTS, 2, channels) of x - (first row of x), and of its square */
void moments(int64_t rows, int64_t channels, const float *x, float *sums) {
#pragma omp parallel for schedule(static)
    for (int part = 0; part < BATCH_PARTS; part++)
        for (int64_t channel = 0; channel < channels; channel += LANES) {
            floats first = load_floats(x + channel), sum = {0}, squares = {0};
            for (int64_t row = rows * part / BATCH_PARTS; row < rows * (part + 1) / BATCH_PARTS; row++) {
                floats value = load_floats(x + row * channels + channel) - first;
                sum += value;
                squares += value * value;
            }
            store(sums + (2 * part) * channels + channel, sum);
            store(sums + (2 * part + 1) * channels + channel, squares);
        }
}

void forward(int64_t rows, int64_t channels, const float *x, const float *scale, const float *shift, float *y) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t channel = 0; channel < channels; channel += LANES) {
            int64_t at = row * channels + channel;
            floats z = load_floats(x + at) * load_floats(scale + channel) + load_floats(shift + channel);
            store(y + at, z * sigmoid(z));
        }
}

/* sums (BATCH_PARTS, 2, channels) of grad_z, and of grad_z * z */
void gradient_moments(int64_t rows, int64_t channels, const float *x, const float *scale, const float *shift, const float *grad_y,
                      float *sums) {
#pragma omp parallel for schedule(static)
    for (int part = 0; part < BATCH_PARTS; part++)
        for (int64_t channel = 0; channel < channels; channel += LANES) {
            floats sum = {0}, products = {0}, scales = load_floats(scale + channel), shifts = load_floats(shift + channel);
            for (int64_t row = rows * part / BATCH_PARTS; row < rows * (part + 1) / BATCH_PARTS; row++) {
                int64_t at = row * channels + channel;
                floats z = load_floats(x + at) * scales + shifts, grad_z = silu_gradient(z, load_floats(grad_y + at));
                sum += grad_z;
                products += grad_z * z;
            }
            store(sums + (2 * part) * channels + channel, sum);
            store(sums + (2 * part + 1) * channels + channel, products);
        }
}

/* grad_x = scale * grad_z + slope * z + offset */
void backward(int64_t rows, int64_t channels, const float *x, const float *scale, const float *shift, const float *grad_y,
              const float *slope, const float *offset, float *grad_x) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t channel = 0; channel < channels; channel += LANES) {
            int64_t at = row * channels + channel;
            floats scales = load_floats(scale + channel), z = load_floats(x + at) * scales + load_floats(shift + channel);
            floats rest = z * load_floats(slope + channel) + load_floats(offset + channel);
            store(grad_x + at, silu_gradient(z, load_floats(grad_y + at)) * scales + rest);
        }
}
