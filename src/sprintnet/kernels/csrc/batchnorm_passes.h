/* The passes of batch norm and an activation, ReLU or SiLU, that do not depend on the number format, for batchnorm.c (bf16) and
   batchnorm_fp32.c. Before it is included: `element`, a value in memory; `vector`, LANES values in registers; load and store of elements,
   store past the caches, which stream_fence ends; load_floats and store_floats of fp32; sigmoid, silu_gradient. Feature maps are rows
   (pixels) of `channels` values, a multiple of LANES.

   normalised = x * scale + shift for each channel; z = normalised * weight + bias + skip (if any); y = z * sigmoid(z) or max(z, 0). */
#include "parts.h"

#define GROUP 4 /* vectors of neighbouring channels whose sums are kept in registers: whole cache lines are read */

#define AHEAD (4096 / sizeof(element)) /* of what is computed, values are fetched from memory: twice as fast on Granite Rapids (LOG.md) */

typedef int32_t mask __attribute__((vector_size(sizeof(vector))));

typedef struct {
    const float *scale, *shift, *weight, *bias;
} parameters;

INLINE parameters from_channel(parameters p, int64_t channel) {
    return (parameters){p.scale + channel, p.shift + channel, p.weight + channel, p.bias + channel};
}

INLINE vector scale_and_shift(vector x, const float *factor, const float *summand) {
    return x * load_floats(factor) + load_floats(summand);
}

INLINE vector z_of(vector normalised, parameters p, const element *skip, int64_t at) {
    vector z = scale_and_shift(normalised, p.weight, p.bias);
    if (skip) z += load(skip + at);
    return z;
}

INLINE void fetch(const element *first, const element *second, int64_t at) {
    __builtin_prefetch(first + at + AHEAD);
    if (second) __builtin_prefetch(second + at + AHEAD);
}

INLINE vector if_positive(vector z, vector values) { return (vector)(~(mask)(z <= 0) & (mask)values); } /* or NaN */

INLINE vector activate(vector z, int is_relu) {
    if (is_relu) return if_positive(z, z);
    return z * sigmoid(z);
}

INLINE vector activation_gradient(vector z, vector grad_y, int is_relu) {
    if (is_relu) return if_positive(z, grad_y);
    return silu_gradient(z, grad_y);
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

void forward(int64_t rows, int64_t channels, int64_t is_relu, const element *x, const float *scale, const float *shift, const float *weight,
             const float *bias, const element *skip, element *y) {
    parameters all = {scale, shift, weight, bias};
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row++)
            for (int64_t channel = 0; channel < channels; channel += LANES) {
                int64_t at = row * channels + channel;
                fetch(x, skip, at);
                parameters p = from_channel(all, channel);
                store(y + at, activate(z_of(scale_and_shift(load(x + at), p.scale, p.shift), p, skip, at), is_relu));
            }
        stream_fence();
    }
}

INLINE void part_gradient_moments(int64_t rows, int64_t channels, int count, int is_relu, const element *x, parameters all,
                                  const element *skip, const element *grad_y, float *sums) {
    vector sum[GROUP] = {{0}}, products[GROUP] = {{0}};
    for (int64_t row = 0; row < rows; row++)
        for (int i = 0; i < count; i++) {
            int64_t at = row * channels + i * LANES;
            fetch(x, grad_y, at);
            parameters p = from_channel(all, i * LANES);
            vector normalised = scale_and_shift(load(x + at), p.scale, p.shift);
            vector grad_z = activation_gradient(z_of(normalised, p, skip, at), load(grad_y + at), is_relu);
            sum[i] += grad_z;
            products[i] += grad_z * normalised;
        }
    store_sums(sum, products, count, channels, sums);
}

/* sums (BATCH_PARTS, 2, channels) of grad_z, and of grad_z * normalised */
void gradient_moments(int64_t rows, int64_t channels, int64_t is_relu, const element *x, const float *scale, const float *shift,
                      const float *weight, const float *bias, const element *skip, const element *grad_y, float *sums) {
    parameters all = {scale, shift, weight, bias};
#pragma omp parallel for schedule(static)
    for (int part = 0; part < BATCH_PARTS; part++) {
        int64_t start = rows * part / BATCH_PARTS, count = rows * (part + 1) / BATCH_PARTS - start, channel = 0;
        while (channel < channels) {
            int64_t at = start * channels + channel;
            const element *part_skip = skip ? skip + at : 0;
            float *to = sums + 2 * part * channels + channel;
            parameters p = from_channel(all, channel);
            if (channel + GROUP * LANES <= channels) {
                part_gradient_moments(count, channels, GROUP, is_relu, x + at, p, part_skip, grad_y + at, to);
                channel += GROUP * LANES;
            } else {
                part_gradient_moments(count, channels, 1, is_relu, x + at, p, part_skip, grad_y + at, to);
                channel += LANES;
            }
        }
    }
}

/* grad_x = grad_z * factor + normalised * slope + offset; grad_skip = grad_z, where there is a skip */
void backward(int64_t rows, int64_t channels, int64_t is_relu, const element *x, const float *scale, const float *shift,
              const float *weight, const float *bias, const element *skip, const element *grad_y, const float *factor, const float *slope,
              const float *offset, element *grad_x, element *grad_skip) {
    parameters all = {scale, shift, weight, bias};
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row++)
            for (int64_t channel = 0; channel < channels; channel += LANES) {
                int64_t at = row * channels + channel;
                fetch(x, grad_y, at);
                parameters p = from_channel(all, channel);
                vector normalised = scale_and_shift(load(x + at), p.scale, p.shift);
                vector grad_z = activation_gradient(z_of(normalised, p, skip, at), load(grad_y + at), is_relu);
                if (skip) store(grad_skip + at, grad_z);
                store(grad_x + at, grad_z * load_floats(factor + channel) + scale_and_shift(normalised, slope + channel, offset + channel));
            }
        stream_fence();
    }
}
