/* The transform of 3x3 filters and of their gradient, for kernels/winograd.py: a filter w is transformed to G w G', and a gradient e of
   the transformed filter gives that of the filter: G' e G. Filters are fp32, addressed by the strides of their tensor. */
#include "bf16.h"

#define VECTOR 16
#define MAX_TILE_ENTRIES 7

typedef struct {
    int64_t inputs, outputs, entries;
    int64_t of_input, of_output, of_row, of_column; /* strides */
    float matrix[MAX_TILE_ENTRIES][3];                       /* G: entries along a side by taps */
} bank;

/* offsets of VECTOR numbers that are `stride` apart */
INLINE __m512i offsets(int64_t stride) {
    __m512i numbers = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    return _mm512_mullo_epi32(numbers, _mm512_set1_epi32(stride));
}

INLINE __m512 plus(__m512 sum, float factor, __m512 values) { return _mm512_fmadd_ps(_mm512_set1_ps(factor), values, sum); }

INLINE __m512 combined(const float factors[3], const __m512 values[3]) {
    __m512 sum = _mm512_mul_ps(_mm512_set1_ps(factors[0]), values[0]);
    return plus(plus(sum, factors[1], values[1]), factors[2], values[2]);
}

/* sixteen pairs of bf16: one number in the lower half, one in the upper */
INLINE __m512i paired(__m512 lower, __m512 upper) {
    __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(lower));
    __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(upper));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

INLINE void transform_filter(const bank *b, const float *taps, __m512i outputs, __m512 result[MAX_TILE_ENTRIES][MAX_TILE_ENTRIES],
                          const int count) {
    __m512 half[MAX_TILE_ENTRIES][3];
    for (int x = 0; x < 3; x++) {
        __m512 tap[3];
        for (int y = 0; y < 3; y++)
            tap[y] = _mm512_i32gather_ps(outputs, taps + y * b->of_row + x * b->of_column, sizeof *taps);
        for (int e = 0; e < count; e++)
            half[e][x] = combined(b->matrix[e], tap);
    }
    for (int e = 0; e < count; e++)
        for (int f = 0; f < count; f++)
            result[e][f] = combined(b->matrix[f], half[e]);
}

INLINE void transform_gradient(const bank *b, const float *entries, float taps[9][VECTOR][VECTOR], int i, const int count) {
    int64_t apart = b->inputs * b->outputs;
    __m512 half[3][MAX_TILE_ENTRIES];
    for (int f = 0; f < count; f++)
        for (int y = 0; y < 3; y++) {
            half[y][f] = _mm512_setzero_ps();
            for (int e = 0; e < count; e++)
                half[y][f] = plus(half[y][f], b->matrix[e][y], _mm512_loadu_ps(entries + (e * count + f) * apart));
        }
    for (int y = 0; y < 3; y++)
        for (int x = 0; x < 3; x++) {
            __m512 tap = _mm512_setzero_ps();
            for (int f = 0; f < count; f++) tap = plus(tap, b->matrix[f][x], half[y][f]);
            _mm512_storeu_ps(taps[y * 3 + x][i], tap);
        }
}

/* the loops over a side's entries are unrolled */
#define FOR_SIZE(call)          \
    switch (b->entries) {       \
        case 7: call(7); break; \
        case 6: call(6); break; \
        case 5: call(5); break; \
        case 4: call(4); break; \
    }

/* The transformed filters in bf16, in the panels that winograd.c's `multiply` reads. */
void transform_filters(const bank *b, const float *taps, uint16_t *filters) {
    __m512i outputs = offsets(b->of_output);
#pragma omp parallel for schedule(static)
    for (int64_t output = 0; output < b->outputs; output += VECTOR)
        for (int64_t input = 0; input < b->inputs; input += 2) {
            __m512 result[2][MAX_TILE_ENTRIES][MAX_TILE_ENTRIES];
            const float *from = taps + input * b->of_input + output * b->of_output;
            uint16_t *panel = filters + output / (2 * VECTOR) * (2 * VECTOR) * b->inputs;
            uint16_t *to = panel + (input + output / VECTOR % 2) * 2 * VECTOR;
#define TRANSFORM(count)                                               \
    transform_filter(b, from, outputs, result[0], count);               \
    transform_filter(b, from + b->of_input, outputs, result[1], count); \
    for (int e = 0; e < count; e++)                                 \
        for (int f = 0; f < count; f++)                             \
    _mm512_storeu_si512(to + (e * count + f) * b->inputs * b->outputs, paired(result[0][e][f], result[1][e][f]))
            FOR_SIZE(TRANSFORM)
        }
}

/* The gradient of filters from that of the transformed filters (entries, inputs, outputs). Tiles are transposed before they are
   written: outputs are far apart, many of them in the same few cache sets. */
void filter_gradient(const bank *b, const float *entries, float *taps) {
    __m512i inputs = offsets(b->of_input), column = offsets(VECTOR);
#pragma omp parallel for schedule(static)
    for (int64_t output = 0; output < b->outputs; output += VECTOR)
        for (int64_t input = 0; input < b->inputs; input += VECTOR) {
            float result[9][VECTOR][VECTOR];
            for (int i = 0; i < VECTOR; i++) {
                const float *from = entries + (input + i) * b->outputs + output;
#define TRANSFORM_BACK(count) transform_gradient(b, from, result, i, count)
                FOR_SIZE(TRANSFORM_BACK)
            }
            for (int o = 0; o < VECTOR; o++)
                for (int tap = 0; tap < 9; tap++) {
                    __m512 values = _mm512_i32gather_ps(column, &result[tap][0][o], sizeof *taps);
                    int64_t at = input * b->of_input + (output + o) * b->of_output;
                    _mm512_i32scatter_ps(taps + at + tap / 3 * b->of_row + tap % 3 * b->of_column, inputs, values, sizeof *taps);
                }
        }
}
