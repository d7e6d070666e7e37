/* The transforms of Winograd convolution in registers. Before it is included: `element`, a value in memory; `floats`, CHANNELS values in
   registers, with zeros, plus, load and store.

   Along an axis, tiles of `pixels` begin at `first`, `step` apart (pixels outside of the feature map are 0); a matrix transforms each into
   `elements`. In two dimensions the transform is that of the rows, then that of the columns. */
#define MAX_TILE_ELEMENTS 10

typedef struct {
    int64_t size, tiles, first, step, pixels, elements;
    float matrix[MAX_TILE_ELEMENTS][MAX_TILE_ELEMENTS]; /* elements by pixels */
} axis;

/* The rows of a matrix belong to the points 0, a, -a, b, -b, ... and infinity. Two rows of opposite points differ in the sign of their odd
   columns, so a pair of rows costs as much as one; the rows of 0 and infinity have only even or only odd columns. */
INLINE int first_pair(int elements) { return elements % 2 == 0; } /* without the point 0 the pairs come first */

INLINE floats alternate_sum(const float *row, const floats *pixels, int stride, int from, int count) {
    floats sum = zeros();
    for (int p = from; p < count; p += 2) sum = plus(sum, row[p], pixels[p * stride]);
    return sum;
}

/* transformed = matrix * pixels */
INLINE void transform(const axis *t, const floats *pixels, int stride, floats *transformed, const int count, const int elements) {
    if (first_pair(elements)) transformed[0] = alternate_sum(t->matrix[0], pixels, stride, 0, count);
    for (int a = first_pair(elements); a < elements - 1; a += 2) {
        floats even = alternate_sum(t->matrix[a], pixels, stride, 0, count), odd = alternate_sum(t->matrix[a], pixels, stride, 1, count);
        transformed[a] = plus(even, 1, odd);
        transformed[a + 1] = plus(even, -1, odd);
    }
    transformed[elements - 1] = alternate_sum(t->matrix[elements - 1], pixels, stride, (elements - 1) % 2, count);
}

/* pixels = matrix' * transformed */
INLINE void transform_back(const axis *t, const floats *transformed, int stride, floats *pixels, const int count, const int elements) {
    for (int p = 0; p < count; p++) pixels[p] = zeros();
    for (int a = first_pair(elements); a < elements - 1; a += 2) {
        floats even = plus(transformed[a * stride], 1, transformed[(a + 1) * stride]);
        floats odd = plus(transformed[a * stride], -1, transformed[(a + 1) * stride]);
        for (int p = 0; p < count; p++) pixels[p] = plus(pixels[p], t->matrix[a][p], p % 2 ? odd : even);
    }
    for (int p = 0; p < count; p++) {
        if (first_pair(elements) && p % 2 == 0) pixels[p] = plus(pixels[p], t->matrix[0][p], transformed[0]);
        if (p % 2 == (elements - 1) % 2) pixels[p] = plus(pixels[p], t->matrix[elements - 1][p], transformed[(elements - 1) * stride]);
    }
}

/* output = rows * tile * columns' */
INLINE void transform_square(const axis *rows, const axis *columns, const floats tile[MAX_TILE_ELEMENTS][MAX_TILE_ELEMENTS], element *output,
                             int64_t stride, const int pixels, const int count) {
    floats half[MAX_TILE_ELEMENTS][MAX_TILE_ELEMENTS], line[MAX_TILE_ELEMENTS];
    for (int q = 0; q < pixels; q++) {
        transform(rows, &tile[0][q], MAX_TILE_ELEMENTS, line, pixels, count);
        for (int a = 0; a < count; a++) half[a][q] = line[a];
    }
    for (int a = 0; a < count; a++) {
        transform(columns, half[a], 1, line, pixels, count);
        for (int b = 0; b < count; b++) store(output + (a * count + b) * stride, line[b]);
    }
}

/* half = rows' * input, which is the first half of the transform back */
INLINE void transform_back_rows(const axis *rows, const element *input, int64_t stride, floats half[MAX_TILE_ELEMENTS][MAX_TILE_ELEMENTS],
                                const int pixels, const int count) {
    floats column[MAX_TILE_ELEMENTS], line[MAX_TILE_ELEMENTS];
    for (int b = 0; b < count; b++) {
        for (int a = 0; a < count; a++) column[a] = load(input + (a * count + b) * stride);
        transform_back(rows, column, 1, line, pixels, count);
        for (int p = 0; p < pixels; p++) half[p][b] = line[p];
    }
}
