/* Batch norm and an activation in fp32, for batchnorm.py, in the compiler's vector extensions. */
#include "vectors.h"

#include "streams.h"

typedef float element;
typedef floats vector;

INLINE void store_floats(float *to, floats values) { memcpy(to, &values, sizeof values); }
INLINE floats load(const element *from) { return load_floats(from); }
INLINE void store(element *to, floats values) { stream(to, values); }

/* 1 / (1 + exp(-z)) */
INLINE floats sigmoid(floats z) {
    return 1 / (1 + power_of_2(z * -1.44269504f));
}

/* gradient w.r.t. z: grad_y * dy/dz */
INLINE floats silu_gradient(floats z, floats grad_y) {
    floats s = sigmoid(z);
    return grad_y * (s + z * s * (1 - s));
}

#include "batchnorm_passes.h"
