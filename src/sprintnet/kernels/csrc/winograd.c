/* Winograd convolution for kernels/winograd.py, some images at a time, so that what lies between its three steps stays in a core's
   cache: the input transform, the products with the transformed filters (multiply), the output transform. The gradient of the
   input is the same with both transforms transposed; that of the filters is correlate.

   Feature maps are bf16, channels last, the channels a multiple of VECTOR_CHANNELS. A line transforms `pixels` neighbouring pixels of each
   of its tiles, which start `step` apart from `first` (0 outside of the map), to `entries` elements by a matrix; a tile in two
   dimensions is a line of rows and a line of columns. The elements of a group of images are ordered by element, tile, image,
   channel. */
#include <omp.h>

#include "bf16.h"

#define VECTOR_CHANNELS 32
#define MAX_TILE_ENTRIES 7
#define PRODUCT_ROWS 12 /* their sums by VECTOR_CHANNELS columns fill the registers */
#define ROW_PAIRS 64 /* pairs of rows that are read at once */

typedef struct {
    int64_t size, tiles, first, step, pixels, entries;
    float matrix[MAX_TILE_ENTRIES][MAX_TILE_ENTRIES]; /* entries by pixels */
} line;

typedef struct {
    int64_t channels;
    line rows, columns;
} tiling;

INLINE float32x32 load(const uint16_t *from) {
    __m512i values = _mm512_loadu_si512(from);
    return (float32x32){to_float(_mm512_castsi512_si256(values)), to_float(_mm512_extracti64x4_epi64(values, 1))};
}

INLINE float32x32 add_scaled(float32x32 sum, float factor, float32x32 values) {
    __m512 factors = _mm512_set1_ps(factor);
    return (float32x32){_mm512_fmadd_ps(factors, values.low, sum.low), _mm512_fmadd_ps(factors, values.high, sum.high)};
}

INLINE int64_t tiles_of(const tiling *t) { return t->rows.tiles * t->columns.tiles; }
INLINE int64_t entries_of(const tiling *t) { return t->rows.entries * t->columns.entries; }
INLINE int64_t pixels_of(const tiling *t) { return t->rows.size * t->columns.size; }

/* The matrix rows of points a and -a differ in the sign of their odd elements, so both are computed for the price of one; the points
   are 0, a, -a, b, -b, ... and infinity. */
INLINE int first_pair(int entries) { return entries % 2 == 0; } /* without the point 0 the pairs come first */

INLINE float32x32 partial_sum(const float *row, const float32x32 *pixels, int apart, int from, int count) {
    float32x32 sum = zero();
    for (int p = from; p < count; p += 2) sum = add_scaled(sum, row[p], pixels[p * apart]);
    return sum;
}

INLINE void to_entries(const line *t, const float32x32 *pixels, int apart, float32x32 *result, const int count, const int entries) {
    if (first_pair(entries)) result[0] = partial_sum(t->matrix[0], pixels, apart, 0, count);
    for (int a = first_pair(entries); a < entries - 1; a += 2) {
        float32x32 even = partial_sum(t->matrix[a], pixels, apart, 0, count), odd = partial_sum(t->matrix[a], pixels, apart, 1, count);
        result[a] = add_scaled(even, 1, odd);
        result[a + 1] = add_scaled(even, -1, odd);
    }
    result[entries - 1] = partial_sum(t->matrix[entries - 1], pixels, apart, (entries - 1) % 2, count);
}

INLINE void to_pixels(const line *t, const float32x32 *source_entries, int apart, float32x32 *result, const int count, const int entries) {
    for (int p = 0; p < count; p++) result[p] = zero();
    for (int a = first_pair(entries); a < entries - 1; a += 2) {
        float32x32 even = add_scaled(source_entries[a * apart], 1, source_entries[(a + 1) * apart]), odd = add_scaled(source_entries[a * apart], -1, source_entries[(a + 1) * apart]);
        for (int p = 0; p < count; p++) result[p] = add_scaled(result[p], t->matrix[a][p], p % 2 ? odd : even);
    }
    for (int p = 0; p < count; p++) {
        if (first_pair(entries) && p % 2 == 0) result[p] = add_scaled(result[p], t->matrix[0][p], source_entries[0]);
        if (p % 2 == (entries - 1) % 2) result[p] = add_scaled(result[p], t->matrix[entries - 1][p], source_entries[(entries - 1) * apart]);
    }
}

/* entries = row X column' */
INLINE void transform_input_tile(const tiling *t, int64_t y0, int64_t x0, const uint16_t *map, uint16_t *entries, int64_t stride, const int pixels,
                        const int count) {
    float32x32 window[MAX_TILE_ENTRIES][MAX_TILE_ENTRIES], half[MAX_TILE_ENTRIES][MAX_TILE_ENTRIES], result[MAX_TILE_ENTRIES];
    for (int p = 0; p < pixels; p++)
        for (int q = 0; q < pixels; q++) {
            int64_t y = y0 + p, x = x0 + q, is_inside = map && y >= 0 && x >= 0 && y < t->rows.size && x < t->columns.size;
            window[p][q] = is_inside ? load(map + (y * t->columns.size + x) * t->channels) : zero();
        }
    for (int q = 0; q < pixels; q++) {
        to_entries(&t->rows, &window[0][q], MAX_TILE_ENTRIES, result, pixels, count);
        for (int a = 0; a < count; a++) half[a][q] = result[a];
    }
    for (int a = 0; a < count; a++) {
        to_entries(&t->columns, half[a], 1, result, pixels, count);
        for (int b = 0; b < count; b++) _mm512_store_si512((void *)(entries + (a * count + b) * stride), to_bf16(result[b]));
    }
}

/* map += row' entries column */
INLINE void transform_output_tile(const tiling *t, int64_t y0, int64_t x0, const uint16_t *entries, int64_t stride, float32x32 *map, const int pixels,
                        const int count) {
    float32x32 source_entries[MAX_TILE_ENTRIES], half[MAX_TILE_ENTRIES][MAX_TILE_ENTRIES], result[MAX_TILE_ENTRIES];
    for (int b = 0; b < count; b++) {
        for (int a = 0; a < count; a++) source_entries[a] = load(entries + (a * count + b) * stride);
        to_pixels(&t->rows, source_entries, 1, result, pixels, count);
        for (int p = 0; p < pixels; p++) half[p][b] = result[p];
    }
    for (int p = 0; p < pixels; p++) {
        int64_t y = y0 + p;
        if (y < 0 || y >= t->rows.size) continue;
        to_pixels(&t->columns, half[p], 1, result, pixels, count);
        for (int q = 0; q < pixels; q++) {
            int64_t x = x0 + q;
            float32x32 *sum = map + y * t->columns.size + x;
            if (x >= 0 && x < t->columns.size) *sum = add_scaled(*sum, 1, result[q]);
        }
    }
}

/* the loops over a tile's pixels and entries are unrolled */
#define FOR_SIZE(call)                               \
    switch (t->rows.pixels * 10 + t->rows.entries) { \
        case 77: call(7, 7); break;                  \
        case 66: call(6, 6); break;                  \
        case 55: call(5, 5); break;                  \
        case 44: call(4, 4); break;                  \
        case 57: call(5, 7); break;                  \
        case 46: call(4, 6); break;                  \
        case 35: call(3, 5); break;                  \
        case 24: call(2, 4); break;                  \
    }

/* The elements of a group of images, of which `count` exist; those of the others are 0. */
static void transform_input(const tiling *t, int64_t group, int64_t count, const uint16_t *maps, uint16_t *entries) {
    int64_t stride = tiles_of(t) * group * t->channels;
    for (int image = 0; image < group; image++)
        for (int tile = 0; tile < tiles_of(t); tile++)
            for (int channel = 0; channel < t->channels; channel += VECTOR_CHANNELS) {
                int64_t y = t->rows.first + tile / t->columns.tiles * t->rows.step;
                int64_t x = t->columns.first + tile % t->columns.tiles * t->columns.step;
                const uint16_t *map = image < count ? maps + image * pixels_of(t) * t->channels + channel : 0;
                uint16_t *to = entries + (tile * group + image) * t->channels + channel;
#define TRANSFORM_INPUT(pixels, number) transform_input_tile(t, y, x, map, to, stride, pixels, number)
                FOR_SIZE(TRANSFORM_INPUT)
            }
}

static void transform_output(const tiling *t, int64_t group, int64_t count, const uint16_t *entries, uint16_t *maps) {
    int64_t stride = tiles_of(t) * group * t->channels, pixels = pixels_of(t);
    for (int image = 0; image < count; image++)
        for (int channel = 0; channel < t->channels; channel += VECTOR_CHANNELS) {
            float32x32 map[pixels];
            memset(map, 0, sizeof map);
            for (int tile = 0; tile < tiles_of(t); tile++) {
                int64_t y = t->rows.first + tile / t->columns.tiles * t->rows.step;
                int64_t x = t->columns.first + tile % t->columns.tiles * t->columns.step;
                const uint16_t *from = entries + (tile * group + image) * t->channels + channel;
#define TRANSFORM_OUTPUT(pixels, number) transform_output_tile(t, y, x, from, stride, map, pixels, number)
                FOR_SIZE(TRANSFORM_OUTPUT)
            }
            for (int64_t pixel = 0; pixel < pixels; pixel++)
                _mm512_stream_si512((void *)(maps + (image * pixels + pixel) * t->channels + channel), to_bf16(map[pixel]));
        }
}

/* b = a * matrix in bf16: a is (length, inner), b (length, outer), the length a multiple of PRODUCT_ROWS. The matrix is stored in panels of
   VECTOR_CHANNELS columns, each by pairs of rows, so that one load holds two rows of sixteen columns. */
static void multiply(int64_t length, int64_t inner, int64_t outer, const uint16_t *a, const uint16_t *matrix, uint16_t *b) {
    for (int panel = 0; panel < outer; panel += VECTOR_CHANNELS, matrix += inner * VECTOR_CHANNELS)
        for (int64_t row = 0; row < length; row += PRODUCT_ROWS) {
            const uint16_t *from = a + row * inner;
            float32x32 sums[PRODUCT_ROWS];
#pragma GCC unroll 12
            for (int r = 0; r < PRODUCT_ROWS; r++) sums[r] = zero();
            for (int i = 0; i < inner; i += 2) {
                __m512bh low = (__m512bh)_mm512_load_si512(matrix + i * VECTOR_CHANNELS);
                __m512bh high = (__m512bh)_mm512_load_si512(matrix + (i + 1) * VECTOR_CHANNELS);
#pragma GCC unroll 12
                for (int r = 0; r < PRODUCT_ROWS; r++) {
                    __m512bh pair = broadcast_pair(from + r * inner + i);
                    sums[r].low = _mm512_dpbf16_ps(sums[r].low, pair, low);
                    sums[r].high = _mm512_dpbf16_ps(sums[r].high, pair, high);
                }
            }
#pragma GCC unroll 12
            for (int r = 0; r < PRODUCT_ROWS; r++) _mm512_store_si512((void *)(b + (row + r) * outer + panel), to_bf16(sums[r]));
        }
}

/* Copies `size` numbers, bypassing the caches. */
static void stream(int64_t size, const uint16_t *from, uint16_t *to) {
    for (int64_t i = 0; i < size; i += VECTOR_CHANNELS) _mm512_stream_si512((void *)(to + i), _mm512_load_si512(from + i));
}

/* features = output transform(input transform(maps) * filters), a group of images at a time. The transformed maps are saved (entries,
   rows, channels), with rows for whole groups. `scratch` holds a group's elements of input and output for each thread. */
void convolve(const tiling *from, const tiling *to, int64_t images, int64_t group, const uint16_t *maps, const uint16_t *filters,
              uint16_t *features, uint16_t *saved_entries, uint16_t *scratch, int64_t threads) {
    int64_t entries = entries_of(from), rows = tiles_of(from) * group, groups = (images + group - 1) / group;
    int64_t source_size = rows * from->channels, target_size = rows * to->channels; /* of an element */
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t number = 0; number < groups; number++) {
        uint16_t *source_entries = scratch + omp_get_thread_num() * entries * (source_size + target_size), *target_entries = source_entries + entries * source_size;
        int64_t first = number * group, count = images - first < group ? images - first : group;
        transform_input(from, group, count, maps + first * pixels_of(from) * from->channels, source_entries);
        for (int64_t entry = 0; entry < entries; entry++) {
            multiply(rows, from->channels, to->channels, source_entries + entry * source_size, filters + entry * from->channels * to->channels,
                     target_entries + entry * target_size);
            stream(source_size, source_entries + entry * source_size, saved_entries + (entry * groups + number) * source_size);
        }
        transform_output(to, group, count, target_entries, features + first * pixels_of(to) * to->channels);
        _mm_sfence();
    }
}

/* Two rows as one of pairs: a, b -> a0 b0 a1 b1 ... */
INLINE void interleave_rows(int64_t size, const uint16_t *a, const uint16_t *b, uint32_t *pairs) {
    uint16_t order[2 * VECTOR_CHANNELS];
    for (int i = 0; i < 2 * VECTOR_CHANNELS; i++) order[i] = i / 2 + i % 2 * VECTOR_CHANNELS; /* in two registers */
    __m512i low = _mm512_loadu_si512(order), high = _mm512_loadu_si512(order + VECTOR_CHANNELS);
    for (int i = 0; i < size; i += VECTOR_CHANNELS) {
        __m512i pairs_a = _mm512_load_si512(a + i), pairs_b = _mm512_load_si512(b + i);
        _mm512_store_si512((void *)(pairs + i), _mm512_permutex2var_epi16(pairs_a, low, pairs_b));
        _mm512_store_si512((void *)(pairs + i + VECTOR_CHANNELS / 2), _mm512_permutex2var_epi16(pairs_a, high, pairs_b));
    }
}

/* sums (entries, inner, outer) = a' * b for each element: a (entries, rows, inner) and b (entries, rows, outer) in bf16, an even number
   of rows. */
void correlate(int64_t entries, int64_t rows, int64_t inner, int64_t outer, const uint16_t *a, const uint16_t *b, float *sums) {
#pragma omp parallel for schedule(static)
    for (int64_t entry = 0; entry < entries; entry++) {
        uint32_t pairs_a[ROW_PAIRS][inner] __attribute__((aligned(64))), pairs_b[ROW_PAIRS][outer] __attribute__((aligned(64)));
        float *sum = sums + entry * inner * outer;
        memset(sum, 0, sizeof(float) * inner * outer);
        for (int64_t row = entry * rows; row < (entry + 1) * rows;) {
            int pairs = 0;
            for (; pairs < ROW_PAIRS && row < (entry + 1) * rows; pairs++, row += 2) {
                interleave_rows(inner, a + row * inner, a + (row + 1) * inner, pairs_a[pairs]);
                interleave_rows(outer, b + row * outer, b + (row + 1) * outer, pairs_b[pairs]);
            }
            for (int i = 0; i < inner; i += TILE_ROWS)
                for (int o = 0; o < outer; o += VECTOR_CHANNELS) {
                    float32x32 tile[TILE_ROWS];
                    read_tile(sum + i * outer + o, outer, tile);
                    add_products(pairs, pairs_a[0] + i, inner, pairs_b[0] + o, outer, tile);
                    write_tile(tile, outer, sum + i * outer + o);
                }
        }
    }
}
