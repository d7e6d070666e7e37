/* Stores past the caches, for what is not read again soon: a cache line that is written whole need not be read first. Plain stores where
   the instruction set has none. Addresses are multiples of a vector's size. */
#ifdef __AVX__
#include <immintrin.h>
#endif

INLINE void stream(float *to, floats values) {
#ifdef __AVX512F__
    _mm512_stream_ps(to, (__m512)values);
#elif defined __AVX__
    _mm256_stream_ps(to, (__m256)values);
#else
    memcpy(to, &values, sizeof values);
#endif
}

/* Orders streams before what follows. */
INLINE void stream_fence(void) {
#ifdef __AVX__
    _mm_sfence();
#endif
}
