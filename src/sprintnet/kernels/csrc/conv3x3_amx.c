/* The gradient of a 3x3 convolution (padding 1) w.r.t. its weight, for conv3x3_amx.py: for each tap, a matrix product over all pixels,

       sums[o][tap][c] = sum over pixels of grad_output[pixel][o] * input[pixel shifted by the tap][c].

   A chunk of images becomes one line of pixels with a zero between rows and a row of zeros between images, so that a tap is a shift along
   the line. The first operand of a product is grad_output transposed to tiles; the second is the input in pairs of pixels, of which there
   are two versions, for even and for odd shifts: so all tiles are contiguous and aligned. Feature maps are bf16, channels_last.

   The input may have any number of channels, grad_output a multiple of BLOCK. */
#include "tiles.h"

#define BLOCK 32 /* channels: two tiles of each operand, four of sums */
#define MAX_OUT_CHANNELS 1024 

typedef uint16_t values __attribute__((vector_size(64)));
typedef uint16_t half_values __attribute__((vector_size(32)));
typedef uint32_t pairs __attribute__((vector_size(64)));

typedef struct {
    int64_t pitch, image, margin, length; /* pixels: of a row, of an image, before and after all images, of a chunk without margins */
} line;

static int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

static line line_of(int64_t images, int64_t height, int64_t width) {
    int64_t pitch = width + 1, image = (height + 1) * pitch;
    return (line){pitch, image, round_up(pitch + 1, TILE_DEPTH), round_up(images * image, TILE_DEPTH)};
}

/* Stores the pixels (place - 1, place) as a pair of each channel, in the arrays of the parity of place - 1. */
static inline void store_pair(values before, values now, int64_t place, uint16_t *const to[2][2]) {
    values low = __builtin_shufflevector(before, now, 0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39, 8, 40, 9, 41, 10, 42, 11, 43,
                                         12, 44, 13, 45, 14, 46, 15, 47);
    values high = __builtin_shufflevector(before, now, 16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55, 24, 56, 25, 57, 26,
                                          58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63);
    int64_t pair = (place - 1) / 2, odd = (place - 1) % 2;
    memcpy(to[odd][0] + pair * TILE_DEPTH, &low, sizeof low);
    memcpy(to[odd][1] + pair * TILE_DEPTH, &high, sizeof high);
}

/* The input of an image, `kept` of its channels, as pairs; `place` is its first pixel's, `end` that of all inputs. */
static void pair_pixels(const line *l, int64_t height, int64_t width, int64_t channels, int64_t kept, const uint16_t *input,
                        const uint16_t *end, int64_t place, uint16_t *const to[2][2]) {
    values before = {0}, now, is_kept;
    for (int i = 0; i < BLOCK; i++) is_kept[i] = i < kept ? 0xffff : 0;
    for (int64_t y = 0; y < height; y++) {
        for (int64_t x = 0; x < width; x++, input += channels, before = now) {
            if (input + BLOCK <= end) {
                memcpy(&now, input, sizeof now);
                now &= is_kept;
            } else { /* near the end of all inputs, after which nothing may be read */
                uint16_t last[BLOCK] = {0};
                memcpy(last, input, kept * sizeof *input);
                memcpy(&now, last, sizeof now);
            }
            store_pair(before, now, place++, to);
        }
        store_pair(before, (values){0}, place++, to);
        before = (values){0};
    }
    for (int64_t x = 0; x < l->pitch; x++) store_pair(before, before, place++, to);
}

/* A tile of TILE channels (rows) by TILE_DEPTH pixels, from rows of channels. */
static void transpose(const uint16_t *const rows[TILE_DEPTH], uint16_t *tile) {
    pairs a[TILE], b[TILE];
    for (int i = 0; i < TILE; i++) { /* two pixels, channel by channel */
        half_values first, second;
        memcpy(&first, rows[2 * i], sizeof first);
        memcpy(&second, rows[2 * i + 1], sizeof second);
        a[i] = (pairs)__builtin_shufflevector(first, second, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8, 24, 9, 25, 10, 26, 11,
                                              27, 12, 28, 13, 29, 14, 30, 15, 31);
    }
    /* 16x16 pairs: each step swaps the bits of one power of two between row and column numbers */
    for (int i = 0; i < TILE; i += 2) {
        b[i] = __builtin_shufflevector(a[i], a[i + 1], 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
        b[i + 1] = __builtin_shufflevector(a[i], a[i + 1], 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
    }
    for (int i = 0; i < TILE; i += 4)
        for (int j = 0; j < 2; j++) {
            a[i + 2 * j] = __builtin_shufflevector(b[i + j], b[i + j + 2], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
            a[i + 2 * j + 1] = __builtin_shufflevector(b[i + j], b[i + j + 2], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
        }
    /* now a[4 * group + c] holds, of 4 pairs of pixels, the channels c, c + 4, c + 8, c + 12, in that order */
    for (int i = 0; i < 4; i++) {
        pairs low = __builtin_shufflevector(a[i], a[i + 4], 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
        pairs high = __builtin_shufflevector(a[i], a[i + 4], 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
        pairs low2 = __builtin_shufflevector(a[i + 8], a[i + 12], 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
        pairs high2 = __builtin_shufflevector(a[i + 8], a[i + 12], 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
        b[i] = __builtin_shufflevector(low, low2, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
        b[i + 8] = __builtin_shufflevector(low, low2, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
        b[i + 4] = __builtin_shufflevector(high, high2, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
        b[i + 12] = __builtin_shufflevector(high, high2, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    }
    memcpy(tile, b, sizeof b);
}

/* The rows of TILE_DEPTH pixels of the line from `first` on; zeros where there is no pixel. */
static void find_rows(const line *l, int64_t images, int64_t height, int64_t width, int64_t channels, const uint16_t *maps, int64_t first,
                      const uint16_t *rows[TILE_DEPTH]) {
    static const uint16_t zeros[MAX_OUT_CHANNELS];
    int64_t image = first / l->image, y = first % l->image / l->pitch, x = first % l->pitch;
    for (int i = 0; i < TILE_DEPTH; i++) {
        int is_pixel = image < images && y < height && x < width;
        rows[i] = is_pixel ? maps + ((image * height + y) * width + x) * channels : zeros;
        if (++x == l->pitch) x = 0, y++;
        if (y > height) y = 0, image++;
    }
}

/* Gradients of 2x2 maxima become those of an image's pixels: 0 except where a maximum came from (row * 2 + column of its window). */
static void unpool(int64_t height, int64_t width, int64_t channels, const uint16_t *gradient, const uint8_t *argmax, uint16_t *image) {
    memset(image, 0, height * width * channels * sizeof *image);
    for (int64_t y = 0; y < height / 2; y++)
        for (int64_t x = 0; x < width / 2; x++, gradient += channels, argmax += channels)
            for (int place = 0; place < 4; place++) {
                uint16_t *pixel = image + ((2 * y + place / 2) * width + 2 * x + place % 2) * channels;
                for (int64_t c = 0; c < channels; c++) pixel[c] = argmax[c] == place ? gradient[c] : 0;
            }
}

/* The sums of three neighbouring taps += a * b over `length` pixels: BLOCK output channels (`a_half` leads to the second tile), TILE input
   channels. */
static inline void add_products(int64_t length, const uint16_t *a, int64_t a_half, const uint16_t *const b[3], float *sums, int64_t inner,
                                int is_first) {
    int64_t row = 9 * inner * sizeof *sums, half = TILE * 9 * inner;
    if (is_first) {
        tile_zero(0);
        tile_zero(1);
        tile_zero(2);
        tile_zero(3);
        tile_zero(4);
        tile_zero(5);
    } else {
        tile_load(0, sums, row);
        tile_load(1, sums + inner, row);
        tile_load(2, sums + 2 * inner, row);
        tile_load(3, sums + half, row);
        tile_load(4, sums + half + inner, row);
        tile_load(5, sums + half + 2 * inner, row);
    }
    for (int64_t depth = 0; depth < length * TILE; depth += TILE * TILE_DEPTH) {
        tile_load(6, a + depth, 64);
        tile_load(7, b[0] + depth, 64);
        tile_dot(0, 6, 7);
        tile_load(7, b[1] + depth, 64);
        tile_dot(1, 6, 7);
        tile_load(7, b[2] + depth, 64);
        tile_dot(2, 6, 7);
        tile_load(6, a + a_half + depth, 64);
        tile_dot(5, 6, 7);
        tile_load(7, b[1] + depth, 64);
        tile_dot(4, 6, 7);
        tile_load(7, b[0] + depth, 64);
        tile_dot(3, 6, 7);
    }
    tile_store(0, sums, row);
    tile_store(1, sums + inner, row);
    tile_store(2, sums + 2 * inner, row);
    tile_store(3, sums + half, row);
    tile_store(4, sums + half + inner, row);
    tile_store(5, sums + half + 2 * inner, row);
    MEMORY_BARRIER;
}

/* Values of scratch that weight_gradient needs: the input twice, in pairs, and grad_output, for a chunk's line with its margins. */
int64_t scratch_values(int64_t chunk, int64_t height, int64_t width, int64_t channels, int64_t out_channels) {
    line l = line_of(chunk, height, width);
    return (l.length + 2 * l.margin) * (2 * round_up(channels, BLOCK) + out_channels);
}

/* sums: fp32 (out_channels, 9, channels rounded up to BLOCK). scratch: bf16, scratch_values of them. With argmax, grad_output is that of
   the maxima, and `unpooled` has room for that of a chunk's pixels. */
void weight_gradient(int64_t images, int64_t height, int64_t width, int64_t channels, int64_t out_channels, const uint16_t *input,
                     const uint16_t *grad_output, const uint8_t *argmax, uint16_t *unpooled, float *sums, int64_t chunk, uint16_t *scratch,
                     int64_t threads) {
    int64_t in_blocks = round_up(channels, BLOCK) / BLOCK, out_blocks = out_channels / BLOCK, inner = in_blocks * BLOCK;
    line whole = line_of(chunk, height, width);
    int64_t padded = whole.length + 2 * whole.margin, array = padded * TILE; /* values of TILE channels in an array of pairs */
    uint16_t *paired = scratch, *transposed = scratch + inner * 2 * padded;
#pragma omp parallel num_threads(threads)
    {
        tiles_begin();
        for (int64_t start = 0; start < images; start += chunk) {
            int64_t count = images - start < chunk ? images - start : chunk;
            line l = line_of(count, height, width);
            const uint16_t *x = input + start * height * width * channels, *g = grad_output + start * height * width * out_channels;
            if (argmax) {
                int64_t maxima = height / 2 * (width / 2) * out_channels; /* of an image */
                g = unpooled;
#pragma omp for schedule(static)
                for (int64_t image = 0; image < count; image++)
                    unpool(height, width, out_channels, grad_output + (start + image) * maxima, argmax + (start + image) * maxima,
                           unpooled + image * height * width * out_channels);
            }
#pragma omp for schedule(static) nowait
            for (int64_t item = 0; item < in_blocks * count; item++) {
                int64_t block = item / count, image = item % count, kept = channels - block * BLOCK < BLOCK ? channels - block * BLOCK : BLOCK;
                uint16_t *to[2][2];
                for (int odd = 0; odd < 2; odd++)
                    for (int half = 0; half < 2; half++) {
                        to[odd][half] = paired + ((block * 2 + half) * 2 + odd) * array;
                        if (image == 0) memset(to[odd][half], 0, l.margin * TILE * sizeof *scratch);
                    }
                pair_pixels(&l, height, width, channels, kept, x + image * height * width * channels + block * BLOCK,
                            input + images * height * width * channels, l.margin + image * l.image, to);
                if (image == count - 1)
                    for (int odd = 0; odd < 2; odd++)
                        for (int half = 0; half < 2; half++) {
                            int64_t end = (l.margin + count * l.image - odd) / 2;
                            memset(to[odd][half] + end * TILE_DEPTH, 0, (array - end * TILE_DEPTH) * sizeof *scratch);
                        }
            }
#pragma omp for schedule(static)
            for (int64_t depth = 0; depth < l.length; depth += TILE_DEPTH) {
                const uint16_t *rows[TILE_DEPTH];
                find_rows(&l, count, height, width, out_channels, g, depth, rows);
                for (int64_t o = 0; o < out_channels; o += TILE) {
                    transpose(rows, transposed + o * whole.length + depth * TILE);
                    for (int i = 0; i < TILE_DEPTH; i++) rows[i] += TILE;
                }
            }
            MEMORY_BARRIER;
#pragma omp for schedule(static)
            for (int64_t unit = 0; unit < in_blocks * out_blocks * 6; unit++) {
                int64_t row = unit % 3, half = unit / 3 % 2, out = unit / 6 % out_blocks, in = unit / 6 / out_blocks;
                const uint16_t *arrays = paired + (in * 4 + half * 2) * array, *taps[3];
                for (int column = 0; column < 3; column++) {
                    int64_t place = l.margin + (row - 1) * l.pitch + column - 1;
                    taps[column] = arrays + place % 2 * array + place / 2 * TILE_DEPTH;
                }
                add_products(l.length, transposed + out * BLOCK * whole.length, whole.length * TILE, taps,
                             sums + out * BLOCK * 9 * inner + row * 3 * inner + in * BLOCK + half * TILE, inner, start == 0);
            }
        }
        tiles_end();
    }
}
