/* models/winograd.py's convolution, some images at a time, so that what lies between its three steps never leaves a core's own
   cache: the input transform (spread), the products with the transformed filters (multiply), the output transform (gather).
   The gradient of the input goes the same way with both transforms transposed; that of the filters is correlate.

   Maps of bf16 lie pixel after pixel, their channels last, a multiple of LANES. A line takes `pixels` in a row of each of its
   tiles, which begin `step` apart from `first` on (outside of the map they are 0), to `entries`, by a matrix; a tile in two
   dimensions is a line's of rows and a line's of columns. The entries of a group of images lie entry after entry, tile after
   tile, image after image, channels last. */
#include <omp.h>

#include "bf16.h"

#define LANES 32
#define LONGEST 7
#define ROWS 12 /* whose sums fill the registers, with LANES of their columns */
#define PAIRS 64 /* of rows that are read at once */

typedef struct {
    int64_t size, tiles, first, step, pixels, entries;
    float matrix[LONGEST][LONGEST]; /* entries by pixels */
} line;

typedef struct {
    int64_t channels;
    line rows, columns;
} tiling;

INLINE floats load(const uint16_t *from) {
    __m512i values = _mm512_loadu_si512(from);
    return (floats){widened(_mm512_castsi512_si256(values)), widened(_mm512_extracti64x4_epi64(values, 1))};
}

INLINE floats plus(floats sum, float factor, floats values) {
    __m512 factors = _mm512_set1_ps(factor);
    return (floats){_mm512_fmadd_ps(factors, values.low, sum.low), _mm512_fmadd_ps(factors, values.high, sum.high)};
}

INLINE int64_t tiles_of(const tiling *t) { return t->rows.tiles * t->columns.tiles; }
INLINE int64_t entries_of(const tiling *t) { return t->rows.entries * t->columns.entries; }
INLINE int64_t pixels_of(const tiling *t) { return t->rows.size * t->columns.size; }

/* The rows of a line's matrix are even or odd in their pixels, or two after each other differ in the sign of what is odd: they
   come from points 0, a, -a, b, -b and infinity. So both of a pair are had for the price of one. */
INLINE int first_pair(int entries) { return entries % 2 == 0; } /* without 0 the pairs come first */

INLINE floats part(const float *row, const floats *pixels, int apart, int from, int count) {
    floats sum = zero();
    for (int p = from; p < count; p += 2) sum = plus(sum, row[p], pixels[p * apart]);
    return sum;
}

INLINE void to_entries(const line *t, const floats *pixels, int apart, floats *found, const int count, const int entries) {
    if (first_pair(entries)) found[0] = part(t->matrix[0], pixels, apart, 0, count);
    for (int a = first_pair(entries); a < entries - 1; a += 2) {
        floats even = part(t->matrix[a], pixels, apart, 0, count), odd = part(t->matrix[a], pixels, apart, 1, count);
        found[a] = plus(even, 1, odd);
        found[a + 1] = plus(even, -1, odd);
    }
    found[entries - 1] = part(t->matrix[entries - 1], pixels, apart, (entries - 1) % 2, count);
}

INLINE void to_pixels(const line *t, const floats *taken, int apart, floats *found, const int count, const int entries) {
    for (int p = 0; p < count; p++) found[p] = zero();
    for (int a = first_pair(entries); a < entries - 1; a += 2) {
        floats even = plus(taken[a * apart], 1, taken[(a + 1) * apart]), odd = plus(taken[a * apart], -1, taken[(a + 1) * apart]);
        for (int p = 0; p < count; p++) found[p] = plus(found[p], t->matrix[a][p], p % 2 ? odd : even);
    }
    for (int p = 0; p < count; p++) {
        if (first_pair(entries) && p % 2 == 0) found[p] = plus(found[p], t->matrix[0][p], taken[0]);
        if (p % 2 == (entries - 1) % 2) found[p] = plus(found[p], t->matrix[entries - 1][p], taken[(entries - 1) * apart]);
    }
}

/* entries = row X column' */
INLINE void spread_tile(const tiling *t, int64_t y0, int64_t x0, const uint16_t *map, uint16_t *entries, int64_t stride, const int pixels,
                        const int count) {
    floats window[LONGEST][LONGEST], half[LONGEST][LONGEST], found[LONGEST];
    for (int p = 0; p < pixels; p++)
        for (int q = 0; q < pixels; q++) {
            int64_t y = y0 + p, x = x0 + q, is_inside = map && y >= 0 && x >= 0 && y < t->rows.size && x < t->columns.size;
            window[p][q] = is_inside ? load(map + (y * t->columns.size + x) * t->channels) : zero();
        }
    for (int q = 0; q < pixels; q++) {
        to_entries(&t->rows, &window[0][q], LONGEST, found, pixels, count);
        for (int a = 0; a < count; a++) half[a][q] = found[a];
    }
    for (int a = 0; a < count; a++) {
        to_entries(&t->columns, half[a], 1, found, pixels, count);
        for (int b = 0; b < count; b++) _mm512_store_si512((void *)(entries + (a * count + b) * stride), rounded(found[b]));
    }
}

/* map += row' entries column */
INLINE void gather_tile(const tiling *t, int64_t y0, int64_t x0, const uint16_t *entries, int64_t stride, floats *map, const int pixels,
                        const int count) {
    floats taken[LONGEST], half[LONGEST][LONGEST], found[LONGEST];
    for (int b = 0; b < count; b++) {
        for (int a = 0; a < count; a++) taken[a] = load(entries + (a * count + b) * stride);
        to_pixels(&t->rows, taken, 1, found, pixels, count);
        for (int p = 0; p < pixels; p++) half[p][b] = found[p];
    }
    for (int p = 0; p < pixels; p++) {
        int64_t y = y0 + p;
        if (y < 0 || y >= t->rows.size) continue;
        to_pixels(&t->columns, half[p], 1, found, pixels, count);
        for (int q = 0; q < pixels; q++) {
            int64_t x = x0 + q;
            floats *sum = map + y * t->columns.size + x;
            if (x >= 0 && x < t->columns.size) *sum = plus(*sum, 1, found[q]);
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

/* The entries of a group of images, of which `count` are there; those of the others are 0. */
static void spread(const tiling *t, int64_t group, int64_t count, const uint16_t *maps, uint16_t *entries) {
    int64_t stride = tiles_of(t) * group * t->channels;
    for (int image = 0; image < group; image++)
        for (int tile = 0; tile < tiles_of(t); tile++)
            for (int channel = 0; channel < t->channels; channel += LANES) {
                int64_t y = t->rows.first + tile / t->columns.tiles * t->rows.step;
                int64_t x = t->columns.first + tile % t->columns.tiles * t->columns.step;
                const uint16_t *map = image < count ? maps + image * pixels_of(t) * t->channels + channel : 0;
                uint16_t *to = entries + (tile * group + image) * t->channels + channel;
#define SPREAD(pixels, number) spread_tile(t, y, x, map, to, stride, pixels, number)
                FOR_SIZE(SPREAD)
            }
}

static void gather(const tiling *t, int64_t group, int64_t count, const uint16_t *entries, uint16_t *maps) {
    int64_t stride = tiles_of(t) * group * t->channels, pixels = pixels_of(t);
    for (int image = 0; image < count; image++)
        for (int channel = 0; channel < t->channels; channel += LANES) {
            floats map[pixels];
            memset(map, 0, sizeof map);
            for (int tile = 0; tile < tiles_of(t); tile++) {
                int64_t y = t->rows.first + tile / t->columns.tiles * t->rows.step;
                int64_t x = t->columns.first + tile % t->columns.tiles * t->columns.step;
                const uint16_t *from = entries + (tile * group + image) * t->channels + channel;
#define GATHER(pixels, number) gather_tile(t, y, x, from, stride, map, pixels, number)
                FOR_SIZE(GATHER)
            }
            for (int64_t pixel = 0; pixel < pixels; pixel++)
                _mm512_stream_si512((void *)(maps + (image * pixels + pixel) * t->channels + channel), rounded(map[pixel]));
        }
}

/* b = a * matrix, of bf16: a is (length, inner), b (length, outer), the length a multiple of ROWS. The matrix lies in panels of
   LANES columns, in each of them row pair after row pair, so that one load holds two rows of sixteen columns. */
static void multiply(int64_t length, int64_t inner, int64_t outer, const uint16_t *a, const uint16_t *matrix, uint16_t *b) {
    for (int panel = 0; panel < outer; panel += LANES, matrix += inner * LANES)
        for (int64_t row = 0; row < length; row += ROWS) {
            const uint16_t *from = a + row * inner;
            floats sums[ROWS];
#pragma GCC unroll 12
            for (int r = 0; r < ROWS; r++) sums[r] = zero();
            for (int i = 0; i < inner; i += 2) {
                __m512bh low = (__m512bh)_mm512_load_si512(matrix + i * LANES);
                __m512bh high = (__m512bh)_mm512_load_si512(matrix + (i + 1) * LANES);
#pragma GCC unroll 12
                for (int r = 0; r < ROWS; r++) {
                    __m512bh pair = pair_everywhere(from + r * inner + i);
                    sums[r].low = _mm512_dpbf16_ps(sums[r].low, pair, low);
                    sums[r].high = _mm512_dpbf16_ps(sums[r].high, pair, high);
                }
            }
#pragma GCC unroll 12
            for (int r = 0; r < ROWS; r++) _mm512_store_si512((void *)(b + (row + r) * outer + panel), rounded(sums[r]));
        }
}

/* Copies lines of `size` numbers past the caches. */
static void stream(int64_t size, const uint16_t *from, uint16_t *to) {
    for (int64_t i = 0; i < size; i += LANES) _mm512_stream_si512((void *)(to + i), _mm512_load_si512(from + i));
}

/* features = gather(spread(maps) * filters), a group of images at a time. The entries of all maps are kept (entries, rows,
   channels), with rows for whole groups. `scratch` has room for a group's entries, of maps and of features, for each thread. */
void convolve(const tiling *from, const tiling *to, int64_t images, int64_t group, const uint16_t *maps, const uint16_t *filters,
              uint16_t *features, uint16_t *kept, uint16_t *scratch, int64_t threads) {
    int64_t entries = entries_of(from), rows = tiles_of(from) * group, groups = (images + group - 1) / group;
    int64_t of_maps = rows * from->channels, of_features = rows * to->channels; /* for an entry */
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t number = 0; number < groups; number++) {
        uint16_t *taken = scratch + omp_get_thread_num() * entries * (of_maps + of_features), *given = taken + entries * of_maps;
        int64_t first = number * group, count = images - first < group ? images - first : group;
        spread(from, group, count, maps + first * pixels_of(from) * from->channels, taken);
        for (int64_t entry = 0; entry < entries; entry++) {
            multiply(rows, from->channels, to->channels, taken + entry * of_maps, filters + entry * from->channels * to->channels,
                     given + entry * of_features);
            stream(of_maps, taken + entry * of_maps, kept + (entry * groups + number) * of_maps);
        }
        gather(to, group, count, given, features + first * pixels_of(to) * to->channels);
        _mm_sfence();
    }
}

/* Two rows as one of pairs: a, b -> a0 b0 a1 b1 ... */
INLINE void pair_up(int64_t size, const uint16_t *a, const uint16_t *b, uint32_t *pairs) {
    uint16_t places[2 * LANES];
    for (int i = 0; i < 2 * LANES; i++) places[i] = i / 2 + i % 2 * LANES; /* in two registers of LANES */
    __m512i low = _mm512_loadu_si512(places), high = _mm512_loadu_si512(places + LANES);
    for (int i = 0; i < size; i += LANES) {
        __m512i of_a = _mm512_load_si512(a + i), of_b = _mm512_load_si512(b + i);
        _mm512_store_si512((void *)(pairs + i), _mm512_permutex2var_epi16(of_a, low, of_b));
        _mm512_store_si512((void *)(pairs + i + LANES / 2), _mm512_permutex2var_epi16(of_a, high, of_b));
    }
}

/* sums (entries, inner, outer) = a' * b for each entry: a (entries, rows, inner) and b (entries, rows, outer), an even number of
   rows of bf16. */
void correlate(int64_t entries, int64_t rows, int64_t inner, int64_t outer, const uint16_t *a, const uint16_t *b, float *sums) {
#pragma omp parallel for schedule(static)
    for (int64_t entry = 0; entry < entries; entry++) {
        uint32_t of_a[PAIRS][inner] __attribute__((aligned(64))), of_b[PAIRS][outer] __attribute__((aligned(64)));
        float *sum = sums + entry * inner * outer;
        memset(sum, 0, sizeof(float) * inner * outer);
        for (int64_t row = entry * rows; row < (entry + 1) * rows;) {
            int pairs = 0;
            for (; pairs < PAIRS && row < (entry + 1) * rows; pairs++, row += 2) {
                pair_up(inner, a + row * inner, a + (row + 1) * inner, of_a[pairs]);
                pair_up(outer, b + row * outer, b + (row + 1) * outer, of_b[pairs]);
            }
            for (int i = 0; i < inner; i += TILE_ROWS)
                for (int o = 0; o < outer; o += LANES) {
                    floats tile[TILE_ROWS];
                    read_tile(sum + i * outer + o, outer, tile);
                    add_products(pairs, of_a[0] + i, inner, of_b[0] + o, outer, tile);
                    write_tile(tile, outer, sum + i * outer + o);
                }
        }
    }
}
