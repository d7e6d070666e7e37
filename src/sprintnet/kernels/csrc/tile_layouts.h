/* Operands of tile products, from feature maps in HWNC; prefetched by instructions, since a pixel's images begin far from the last one's. */
#define BLOCK 32 /* images or channels: two tiles */
#define TILE_VALUES (TILE * TILE_DEPTH)

typedef uint16_t values __attribute__((vector_size(64)));
typedef uint16_t half_values __attribute__((vector_size(32)));
typedef uint32_t pairs __attribute__((vector_size(64)));

/* A tile of TILE_DEPTH images, in pairs, by TILE channels, and that of the next TILE channels, from the rows of the images. */
static void pair_images(const uint16_t *const rows[TILE_DEPTH], uint16_t *tile, int64_t next) {
    for (int i = 0; i < TILE; i++) {
        values even, odd;
        memcpy(&even, rows[2 * i], sizeof even);
        memcpy(&odd, rows[2 * i + 1], sizeof odd);
        values low = __builtin_shufflevector(even, odd, 0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39, 8, 40, 9, 41, 10, 42, 11,
                                             43, 12, 44, 13, 45, 14, 46, 15, 47);
        values high = __builtin_shufflevector(even, odd, 16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55, 24, 56, 25, 57, 26,
                                              58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63);
        memcpy(tile + i * TILE_DEPTH, &low, sizeof low);
        memcpy(tile + next + i * TILE_DEPTH, &high, sizeof high);
    }
}

/* A tile of TILE channels (rows) by TILE_DEPTH images, from the rows of the images. */
static void transpose(half_values rows[TILE_DEPTH], uint16_t *tile) {
    pairs a[TILE], b[TILE];
    for (int i = 0; i < TILE; i++) /* two images, channel by channel */
        a[i] = (pairs)__builtin_shufflevector(rows[2 * i], rows[2 * i + 1], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8, 24,
                                              9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
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
    /* now a[4 * group + c] holds, of 4 pairs of images, the channels c, c + 4, c + 8, c + 12, in that order */
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

static inline int64_t round_up(int64_t channels) { return (channels + BLOCK - 1) / BLOCK * BLOCK; }

/* TILE values where `argmax` is a place, 0 elsewhere */
INLINE half_values load_if(const uint16_t *from, const uint8_t *argmax, uint16_t place) {
    uint8_t places __attribute__((vector_size(TILE)));
    half_values loaded;
    memcpy(&loaded, from, sizeof loaded);
    memcpy(&places, argmax, sizeof places);
    return loaded & (half_values)(__builtin_convertvector(places, half_values) == place);
}

INLINE void store_half(uint16_t *to, half_values stored) { memcpy(to, &stored, sizeof stored); }

/* Tiles of BLOCK images, so that they are read in the order of memory: for each pixel of some rows, and TILE_DEPTH channels, two tiles of
   TILE images. */
static void pack(int64_t images, int64_t width, int64_t pitch, int64_t channels, const uint16_t *input, int64_t above, int64_t below,
                 uint16_t *to) {
    int64_t steps = round_up(channels) / TILE_DEPTH;
    for (int64_t pixel = above * width; pixel < below * width; pixel++, to += steps * 2 * TILE_VALUES)
        for (int64_t image = 0; image < BLOCK; image++) {
            const uint16_t *from = input + (pixel * images + image) * pitch;
            for (int64_t step = 0; step < steps; step++) {
                __builtin_prefetch(from + images * pitch + step * TILE_DEPTH);
                memcpy(to + step * 2 * TILE_VALUES + image * TILE_DEPTH, from + step * TILE_DEPTH, 64);
            }
        }
}

/* The same of the gradient of maps of this size, from that of their 2x2 maxima: 0 except where a maximum came from. Channels are a multiple
   of BLOCK; nothing follows them. */
static void unpool(int64_t images, int64_t height, int64_t width, int64_t channels, const uint16_t *gradient, const uint8_t *argmax,
                   int64_t above, int64_t below, uint16_t *to) {
    int64_t length = BLOCK * channels, steps = channels / TILE_DEPTH;
    for (int64_t y = above; y < below; y++)
        for (int64_t x = 0; x < width; x++, to += length)
            if (y / 2 < height / 2 && x / 2 < width / 2) {
                int64_t from = (y / 2 * (width / 2) + x / 2) * images * channels;
                for (int64_t image = 0; image < BLOCK; image++)
                    for (int64_t step = 0; step < steps; step++) {
                        int64_t at = from + image * channels + step * TILE_DEPTH;
                        uint16_t *tile = to + step * 2 * TILE_VALUES + image * TILE_DEPTH;
                        __builtin_prefetch(gradient + at + images * channels);
                        __builtin_prefetch(argmax + at + images * channels);
                        store_half(tile, load_if(gradient + at, argmax + at, y % 2 * 2 + x % 2));
                        store_half(tile + TILE, load_if(gradient + at + TILE, argmax + at + TILE, y % 2 * 2 + x % 2));
                    }
            } else {
                memset(to, 0, length * sizeof *to);
            }
}
