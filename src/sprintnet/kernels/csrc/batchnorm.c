/* Batch norm and an activation in bf16, for batchnorm.py. */
#include "bf16.h"

#define LANES FP32_LANES

typedef uint16_t element;
typedef __m512 vector;

INLINE __m512 load_floats(const float *from) { return _mm512_loadu_ps(from); }
INLINE void store_floats(float *to, __m512 values) { _mm512_storeu_ps(to, values); }
INLINE __m512 load(const element *from) { return to_fp32(_mm256_loadu_si256((const void *)from)); }
INLINE void store(element *to, __m512 values) { _mm256_stream_si256((void *)to, (__m256i)_mm512_cvtneps_pbh(values)); }
INLINE void stream_fence(void) { _mm_sfence(); }

/* 1 / (1 + exp(-z)), to 14 bits; bf16 has 8 */
INLINE __m512 sigmoid(__m512 z) {
    __m512 exponent = _mm512_mul_ps(z, _mm512_set1_ps(-1.44269504f)); /* of 2 */
    exponent = _mm512_max_ps(_mm512_min_ps(exponent, _mm512_set1_ps(126)), _mm512_set1_ps(-126));
    __m512 integer = _mm512_roundscale_ps(exponent, 0), fraction = _mm512_sub_ps(exponent, integer);
    __m512 power = _mm512_set1_ps(1.33336e-3f); /* Taylor series of 2^fraction, |fraction| <= 1/2 */
    power = _mm512_fmadd_ps(power, fraction, _mm512_set1_ps(9.61813e-3f));
    power = _mm512_fmadd_ps(power, fraction, _mm512_set1_ps(5.55041e-2f));
    power = _mm512_fmadd_ps(power, fraction, _mm512_set1_ps(2.40226507e-1f));
    power = _mm512_fmadd_ps(power, fraction, _mm512_set1_ps(6.93147181e-1f));
    power = _mm512_fmadd_ps(power, fraction, _mm512_set1_ps(1));
    return _mm512_rcp14_ps(_mm512_add_ps(_mm512_scalef_ps(power, integer), _mm512_set1_ps(1)));
}

/* gradient w.r.t. z: grad_y * dy/dz */
INLINE __m512 silu_gradient(__m512 z, __m512 grad_y) {
    __m512 s = sigmoid(z);
    __m512 slope = _mm512_fmadd_ps(z, _mm512_fnmadd_ps(s, s, s), s); /* s + z * s * (1 - s) */
    return _mm512_mul_ps(grad_y, slope);
}

#include "batchnorm_passes.h"
