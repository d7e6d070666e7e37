/* Tile registers, 16 rows of 64 bytes: those of Intel AMX, or the same in scalar C where it is not compiled for (tests). A tile of bf16 has
   16 rows of 32 values; tile_dot needs the rows of its second operand in pairs: row k holds (b[2k][0], b[2k+1][0], b[2k][1], ...). */
#include <stdint.h>
#include <string.h>

#define TILE 16 /* rows, and fp32 values in a row */
#define TILE_DEPTH 32 /* bf16 values in a row */

#ifdef __AMX_BF16__
#include <immintrin.h>

#define MEMORY_BARRIER __asm__ volatile("" ::: "memory") /* the intrinsics do not tell the compiler that they read and write memory */
#define tile_zero(tile) _tile_zero(tile)
#define tile_load(tile, from, stride) _tile_loadd(tile, from, stride)
#define tile_store(tile, to, stride) _tile_stored(tile, to, stride)
#define tile_dot(sum, a, b) _tile_dpbf16ps(sum, a, b)

static void tiles_begin(void) {
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int tile = 0; tile < 8; tile++) config.row_bytes[tile] = 64, config.rows[tile] = TILE;
    __asm__ volatile("ldtilecfg %0" ::"m"(config)); /* the intrinsic of some compilers reads only a part of it */
}

static void tiles_end(void) { _tile_release(); }
#else
#define MEMORY_BARRIER
#define tile_zero(tile) memset(tiles[tile], 0, sizeof tiles[tile])
#define tile_dot(sum, a, b) multiply_tiles((float(*)[TILE])tiles[sum], tiles[a], tiles[b])

static _Thread_local uint32_t tiles[8][TILE][TILE];

static void tile_load(int tile, const void *from, int64_t stride) {
    for (int row = 0; row < TILE; row++) memcpy(tiles[tile][row], (const char *)from + row * stride, 64);
}

static void tile_store(int tile, void *to, int64_t stride) {
    for (int row = 0; row < TILE; row++) memcpy((char *)to + row * stride, tiles[tile][row], 64);
}

static float bf16_value(uint32_t bits) {
    float value;
    bits <<= 16;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void multiply_tiles(float sums[TILE][TILE], uint32_t a[TILE][TILE], uint32_t b[TILE][TILE]) {
    for (int row = 0; row < TILE; row++)
        for (int k = 0; k < TILE; k++)
            for (int column = 0; column < TILE; column++) {
                sums[row][column] += bf16_value(a[row][k]) * bf16_value(b[k][column]);
                sums[row][column] += bf16_value(a[row][k] >> 16) * bf16_value(b[k][column] >> 16);
            }
}

static void tiles_begin(void) {}
static void tiles_end(void) {}
#endif
