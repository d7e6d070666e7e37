/* The Winograd transform of 3x3 filters and its gradient, for winograd.py: a filter w becomes G w G', and the gradient e of the transformed
   filter becomes that of the filter, G' e G. Filters are fp32, with the strides of their tensor. */
#include "bf16.h"

#define MAX_TILE_ELEMENTS 10 /* as in winograd_transforms.h */

typedef struct {
    int64_t in_channels, out_channels, elements; /* elements: along a side */
    int64_t in_stride, out_stride, row_stride, column_stride;
    float matrix[MAX_TILE_ELEMENTS][3]; /* G */
} filter_bank;

/* FP32_LANES offsets, `stride` apart */
INLINE __m512i offsets(int64_t stride) {
    __m512i numbers = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    return _mm512_mullo_epi32(numbers, _mm512_set1_epi32(stride));
}

INLINE __m512 plus(__m512 sum, float factor, __m512 values) { return _mm512_fmadd_ps(_mm512_set1_ps(factor), values, sum); }

INLINE __m512 weighted_sum(const float factors[3], const __m512 values[3]) {
    __m512 sum = _mm512_mul_ps(_mm512_set1_ps(factors[0]), values[0]);
    return plus(plus(sum, factors[1], values[1]), factors[2], values[2]);
}

/* pairs of bf16: the first value in the low half of each lane, the second in the high half */
INLINE __m512i to_pairs(__m512 first, __m512 second) {
    __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(first));
    __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(second));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

INLINE void transform_filter(const filter_bank *b, const float *weight, __m512i outputs,
                             __m512 transformed[MAX_TILE_ELEMENTS][MAX_TILE_ELEMENTS], const int count) {
    __m512 half[MAX_TILE_ELEMENTS][3];
    for (int x = 0; x < 3; x++) {
        __m512 tap[3];
        for (int y = 0; y < 3; y++)
            tap[y] = _mm512_i32gather_ps(outputs, weight + y * b->row_stride + x * b->column_stride, sizeof *weight);
        for (int e = 0; e < count; e++)
            half[e][x] = weighted_sum(b->matrix[e], tap);
    }
    for (int e = 0; e < count; e++)
        for (int f = 0; f < count; f++)
            transformed[e][f] = weighted_sum(b->matrix[f], half[e]);
}

INLINE void transform_gradient(const filter_bank *b, const float *gradient, float taps[9][FP32_LANES][FP32_LANES], int i,
                               const int count) {
    int64_t stride = b->in_channels * b->out_channels;
    __m512 half[3][MAX_TILE_ELEMENTS];
    for (int f = 0; f < count; f++)
        for (int y = 0; y < 3; y++) {
            half[y][f] = _mm512_setzero_ps();
            for (int e = 0; e < count; e++)
                half[y][f] = plus(half[y][f], b->matrix[e][y], _mm512_loadu_ps(gradient + (e * count + f) * stride));
        }
    for (int y = 0; y < 3; y++)
        for (int x = 0; x < 3; x++) {
            __m512 tap = _mm512_setzero_ps();
            for (int f = 0; f < count; f++) tap = plus(tap, b->matrix[f][x], half[y][f]);
            _mm512_storeu_ps(taps[y * 3 + x][i], tap);
        }
}

/* constants for each size, so that the loops over a side's elements are unrolled */
#define FOR_SIZE(call)          \
    switch (b->elements) {      \
        case 7: call(7); break; \
        case 6: call(6); break; \
        case 5: call(5); break; \
        case 4: call(4); break; \
    }

/* filters: the transformed weight (elements, in_channels, out_channels) as bf16, in the panels that winograd.c's `multiply` reads. */
void transform_filters(const filter_bank *b, const float *weight, uint16_t *filters) {
    __m512i outputs = offsets(b->out_stride);
#pragma omp parallel for schedule(static)
    for (int64_t output = 0; output < b->out_channels; output += FP32_LANES)
        for (int64_t input = 0; input < b->in_channels; input += 2) {
            __m512 transformed[2][MAX_TILE_ELEMENTS][MAX_TILE_ELEMENTS];
            const float *from = weight + input * b->in_stride + output * b->out_stride;
            uint16_t *panel = filters + output / BF16_LANES * BF16_LANES * b->in_channels;
            uint16_t *to = panel + (input + output / FP32_LANES % 2) * BF16_LANES;
#define TRANSFORM(count)                                                      \
    transform_filter(b, from, outputs, transformed[0], count);                \
    transform_filter(b, from + b->in_stride, outputs, transformed[1], count); \
    for (int e = 0; e < count; e++)                                           \
        for (int f = 0; f < count; f++)                                       \
    _mm512_storeu_si512(to + (e * count + f) * b->in_channels * b->out_channels, to_pairs(transformed[0][e][f], transformed[1][e][f]))
            FOR_SIZE(TRANSFORM)
        }
}

/* grad_weight from the gradient w.r.t. the transformed weight (elements, in_channels, out_channels). A block of both channels is transposed
   before it is written: output channels lie far apart, many of them in the same few cache sets. */
void transform_filters_backward(const filter_bank *b, const float *gradient, float *grad_weight) {
    __m512i inputs = offsets(b->in_stride), column = offsets(FP32_LANES);
#pragma omp parallel for schedule(static)
    for (int64_t output = 0; output < b->out_channels; output += FP32_LANES)
        for (int64_t input = 0; input < b->in_channels; input += FP32_LANES) {
            float taps[9][FP32_LANES][FP32_LANES];
            for (int i = 0; i < FP32_LANES; i++) {
                const float *from = gradient + (input + i) * b->out_channels + output;
#define TRANSFORM_GRADIENT(count) transform_gradient(b, from, taps, i, count)
                FOR_SIZE(TRANSFORM_GRADIENT)
            }
            for (int o = 0; o < FP32_LANES; o++)
                for (int tap = 0; tap < 9; tap++) {
                    __m512 values = _mm512_i32gather_ps(column, &taps[tap][0][o], sizeof *grad_weight);
                    int64_t at = input * b->in_stride + (output + o) * b->out_stride;
                    float *to = grad_weight + at + tap / 3 * b->row_stride + tap % 3 * b->column_stride;
                    _mm512_i32scatter_ps(to, inputs, values, sizeof *grad_weight);
                }
        }
}
