// What launchers do with the tensors of their arguments.
#pragma once

#include <cuda_bf16.h>

#include <string>
#include <string_view>

#include "kernels/core/check.h"
#include "kernels/core/tensor.h"

namespace pbserve::kernels::cuda {

// The data of a host's tensor as the type that device code uses; dies on another dtype.
template <class T>
T* device_data(const Tensor& tensor, Location where = Location::current()) {
  return tensor.as<T>(where);
}
template <>
inline __nv_bfloat16* device_data(const Tensor& tensor, Location where) {
  return reinterpret_cast<__nv_bfloat16*>(tensor.as<BF16>(where));
}

// The same for an operand that may be absent.
template <class T>
T* device_data_or_null(const Tensor& tensor, Location where = Location::current()) {
  return tensor.empty() ? nullptr : device_data<T>(tensor, where);
}

// The heads that attention and PBS are compiled for; q is [rows, Hq, D].
inline void check_heads(std::string_view op, const Tensor& q,
                        Location where = Location::current()) {
  const bool is_known = q.dtype == DType::kBF16 && (q.dim(2) == 64 || q.dim(2) == 128);
  if (is_known) [[likely]]
    return;
  die(std::string(op) +
          ": the CUDA backend takes bfloat16 heads of 64 and 128 elements only, not " +
          std::string(name_of(q.dtype)) + " of " + std::to_string(q.dim(2)),
      where);
}

}  // namespace pbserve::kernels::cuda
