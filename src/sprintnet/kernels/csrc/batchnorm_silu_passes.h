/* The passes of batch norm with SiLU that do not depend on the number format, for batchnorm_silu.c (bf16) and batchnorm_silu_fp32.c. Before it
   is included: `element`, a value in memory; `vector`, LANES values in registers; load and store of elements, load_floats and store_floats
   of fp32; sigmoid, silu_gradient. Feature maps are rows (pixels) of `channels` values, a multiple of LANES.

   z = x * scale + shift for each channel; y = z * sigmoid(z). */
#include "parts.h"

/* sums (BATCH_PARTS, 2, channels) of x - (first row of x), and of its square */
void moments(int64_t rows, int64_t channels, const element *x, float *sums) {
#pragma omp parallel for schedule(static)
    for (int part = 0; part < BATCH_PARTS; part++)
        for (int64_t channel = 0; channel < channels; channel += LANES) {
            vector first = load(x + channel), sum = {0}, squares = {0};
            for (int64_t row = rows * part / BATCH_PARTS; row < rows * (part + 1) / BATCH_PARTS; row++) {
                vector value = load(x + row * channels + channel) - first;
                sum += value;
                squares += value * value;
            }
            store_floats(sums + (2 * part) * channels + channel, sum);
            store_floats(sums + (2 * part + 1) * channels + channel, squares);
        }
}

void forward(int64_t rows, int64_t channels, const element *x, const float *scale, const float *shift, element *y) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t channel = 0; channel < channels; channel += LANES) {
            int64_t at = row * channels + channel;
            vector z = load(x + at) * load_floats(scale + channel) + load_floats(shift + channel);
            store(y + at, z * sigmoid(z));
        }
}

/* sums (BATCH_PARTS, 2, channels) of grad_z, and of grad_z * z */
void gradient_moments(int64_t rows, int64_t channels, const element *x, const float *scale, const float *shift, const element *grad_y,
                      float *sums) {
#pragma omp parallel for schedule(static)
    for (int part = 0; part < BATCH_PARTS; part++)
        for (int64_t channel = 0; channel < channels; channel += LANES) {
            vector sum = {0}, products = {0}, scales = load_floats(scale + channel), shifts = load_floats(shift + channel);
            for (int64_t row = rows * part / BATCH_PARTS; row < rows * (part + 1) / BATCH_PARTS; row++) {
                int64_t at = row * channels + channel;
                vector z = load(x + at) * scales + shifts, grad_z = silu_gradient(z, load(grad_y + at));
                sum += grad_z;
                products += grad_z * z;
            }
            store_floats(sums + (2 * part) * channels + channel, sum);
            store_floats(sums + (2 * part + 1) * channels + channel, products);
        }
}

/* grad_x = scale * grad_z + slope * z + offset */
void backward(int64_t rows, int64_t channels, const element *x, const float *scale, const float *shift, const element *grad_y,
              const float *slope, const float *offset, element *grad_x) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t channel = 0; channel < channels; channel += LANES) {
            int64_t at = row * channels + channel;
            vector scales = load_floats(scale + channel), z = load(x + at) * scales + load_floats(shift + channel);
            vector rest = z * load_floats(slope + channel) + load_floats(offset + channel);
            store(grad_x + at, silu_gradient(z, load(grad_y + at)) * scales + rest);
        }
}
