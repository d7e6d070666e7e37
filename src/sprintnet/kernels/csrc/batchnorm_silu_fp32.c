/* Batch norm with SiLU in fp32, for batchnorm_silu.py, in the compiler's vector extensions. */
#include "vectors.h"

typedef float element;
typedef floats vector;

INLINE void store_floats(float *to, floats values) { memcpy(to, &values, sizeof values); }
INLINE floats load(const element *from) { return load_floats(from); }
INLINE void store(element *to, floats values) { store_floats(to, values); }

/* 1 / (1 + exp(-z)) */
INLINE floats sigmoid(floats z) {
    const floats limit = (floats){0} + 126;
    floats exponent = z * -1.44269504f; /* of 2 */
    exponent = (floats)choose(exponent > limit, (integers)limit, (integers)exponent);
    exponent = (floats)choose(exponent < -limit, (integers)-limit, (integers)exponent);
    floats integer = (exponent + 12582912.0f) - 12582912.0f, fraction = exponent - integer; /* rounded: 3 * 2^22 has no bits below 1 */
    floats power = (floats){0} + 1.54035304e-4f; /* Taylor series of 2^fraction, |fraction| <= 1/2 */
    power = power * fraction + 1.33335581e-3f;
    power = power * fraction + 9.61812911e-3f;
    power = power * fraction + 5.55041087e-2f;
    power = power * fraction + 2.40226507e-1f;
    power = power * fraction + 6.93147181e-1f;
    power = power * fraction + 1;
    integers scale = (__builtin_convertvector(integer, integers) + 127) << 23;
    return 1 / (1 + power * (floats)scale);
}

/* gradient w.r.t. z: grad_y * dy/dz */
INLINE floats silu_gradient(floats z, floats grad_y) {
    floats s = sigmoid(z);
    return grad_y * (s + z * s * (1 - s));
}

#include "batchnorm_silu_passes.h"
