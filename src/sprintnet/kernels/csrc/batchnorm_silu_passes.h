/* The passes of batch norm with SiLU that do not depend on the number format, for batchnorm_silu.c (bf16) and batchnorm_silu_fp32.c. Before it
   is included: `element`, a value in memory; `vector`, LANES values in registers; load and store of elements, load_floats and store_floats
   of fp32; sigmoid, silu_gradient. Feature maps are rows (pixels) of `channels` values, a multiple of LANES.

   normalised = x * scale + shift for each channel; z = normalised + skip (if any); y = z * sigmoid(z). */
#include "parts.h"

#define GROUP 4 /* vectors of neighbouring channels whose sums are kept in registers: whole cache lines are read */

INLINE vector normalise(vector x, const float *scale, const float *shift) { return x * load_floats(scale) + load_floats(shift); }

INLINE vector add(vector normalised, const element *skip, int64_t at) {
    if (skip) normalised += load(skip + at);
    return normalised;
}

INLINE void store_sums(const vector *first, const vector *second, int count, int64_t channels, float *sums) {
    for (int i = 0; i < count; i++) {
        store_floats(sums + i * LANES, first[i]);
        store_floats(sums + channels + i * LANES, second[i]);
    }
}

INLINE void part_moments(int64_t rows, int64_t channels, int count, const element *first_row, const element *x, float *sums) {
    vector first[GROUP], sum[GROUP] = {{0}}, squares[GROUP] = {{0}};
    for (int i = 0; i < count; i++) first[i] = load(first_row + i * LANES);
    for (int64_t row = 0; row < rows; row++, x += channels)
        for (int i = 0; i < count; i++) {
            vector value = load(x + i * LANES) - first[i];
            sum[i] += value;
            squares[i] += value * value;
        }
    store_sums(sum, squares, count, channels, sums);
}

/* sums (BATCH_PARTS, 2, channels) of x - (first row of x), and of its square */
void moments(int64_t rows, int64_t channels, const element *x, float *sums) {
#pragma omp parallel for schedule(static)
    for (int part = 0; part < BATCH_PARTS; part++) {
        int64_t start = rows * part / BATCH_PARTS, count = rows * (part + 1) / BATCH_PARTS - start, channel = 0;
        const element *from = x + start * channels;
        float *to = sums + 2 * part * channels;
        for (; channel + GROUP * LANES <= channels; channel += GROUP * LANES)
            part_moments(count, channels, GROUP, x + channel, from + channel, to + channel);
        for (; channel < channels; channel += LANES) part_moments(count, channels, 1, x + channel, from + channel, to + channel);
    }
}

void forward(int64_t rows, int64_t channels, const element *x, const float *scale, const float *shift, const element *skip, element *y) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t channel = 0; channel < channels; channel += LANES) {
            int64_t at = row * channels + channel;
            vector z = add(normalise(load(x + at), scale + channel, shift + channel), skip, at);
            store(y + at, z * sigmoid(z));
        }
}

INLINE void part_gradient_moments(int64_t rows, int64_t channels, int count, const element *x, const float *scale, const float *shift,
                                  const element *skip, const element *grad_y, float *sums) {
    vector sum[GROUP] = {{0}}, products[GROUP] = {{0}};
    for (int64_t row = 0; row < rows; row++)
        for (int i = 0; i < count; i++) {
            int64_t at = row * channels + i * LANES;
            vector normalised = normalise(load(x + at), scale + i * LANES, shift + i * LANES);
            vector grad_z = silu_gradient(add(normalised, skip, at), load(grad_y + at));
            sum[i] += grad_z;
            products[i] += grad_z * normalised;
        }
    store_sums(sum, products, count, channels, sums);
}

/* sums (BATCH_PARTS, 2, channels) of grad_z, and of grad_z * normalised */
void gradient_moments(int64_t rows, int64_t channels, const element *x, const float *scale, const float *shift, const element *skip,
                      const element *grad_y, float *sums) {
#pragma omp parallel for schedule(static)
    for (int part = 0; part < BATCH_PARTS; part++) {
        int64_t start = rows * part / BATCH_PARTS, count = rows * (part + 1) / BATCH_PARTS - start, channel = 0;
        while (channel < channels) {
            int64_t at = start * channels + channel;
            const element *part_skip = skip ? skip + at : 0;
            float *to = sums + 2 * part * channels + channel;
            if (channel + GROUP * LANES <= channels) {
                part_gradient_moments(count, channels, GROUP, x + at, scale + channel, shift + channel, part_skip, grad_y + at, to);
                channel += GROUP * LANES;
            } else {
                part_gradient_moments(count, channels, 1, x + at, scale + channel, shift + channel, part_skip, grad_y + at, to);
                channel += LANES;
            }
        }
    }
}

/* grad_x = scale * grad_z + slope * normalised + offset; grad_skip = grad_z, where there is a skip */
void backward(int64_t rows, int64_t channels, const element *x, const float *scale, const float *shift, const element *skip,
              const element *grad_y, const float *slope, const float *offset, element *grad_x, element *grad_skip) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t channel = 0; channel < channels; channel += LANES) {
            int64_t at = row * channels + channel;
            vector normalised = normalise(load(x + at), scale + channel, shift + channel);
            vector grad_z = silu_gradient(add(normalised, skip, at), load(grad_y + at));
            if (skip) store(grad_skip + at, grad_z);
            store(grad_x + at, grad_z * load_floats(scale + channel) + normalise(normalised, slope + channel, offset + channel));
        }
}
