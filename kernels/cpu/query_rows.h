// Queries as the matrix products read them: float32, scaled, one head's tokens row by row.
#pragma once

#include <cstdint>

#include "kernels/core/tensor.h"
#include "kernels/cpu/vec_math.h"

namespace pbserve::kernels::cpu {

// Row stride of packed queries: one Vec more than D, so that it is no multiple of 256 floats.
inline int64_t packed_stride(int64_t head_dim) { return head_dim + kLanes; }

// to[i, :] = scale * q[i, head, :] for all rows of q [n, Hq, D].
template <class T>
void pack_queries(float* to, const Tensor& q, int64_t head, float scale) {
  const int64_t dim = q.dim(2);
  const T* from = q.as<T>() + head * q.stride[1];
  for (int64_t i = 0; i < q.dim(0); ++i) {
    for (int64_t d = 0; d < dim; d += kLanes) {
      store(to + i * packed_stride(dim) + d, load(from + i * q.stride[0] + d) * scale);
    }
  }
}

}  // namespace pbserve::kernels::cpu
