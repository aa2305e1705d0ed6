// Small integer arithmetic that every floor needs, on either side of a GPU's launch.
#pragma once

#include <concepts>

#ifdef __CUDACC__
#define PBSERVE_HOST_DEVICE __host__ __device__
#else
#define PBSERVE_HOST_DEVICE
#endif

namespace pbserve::kernels {

template <std::integral T>
PBSERVE_HOST_DEVICE constexpr T ceil_div(T value, T unit) {
  return (value + unit - 1) / unit;
}

template <std::integral T>
PBSERVE_HOST_DEVICE constexpr T align_up(T value, T unit) {
  return ceil_div(value, unit) * unit;
}

template <std::integral T>
PBSERVE_HOST_DEVICE constexpr T align_down(T value, T unit) {
  return value / unit * unit;
}

}  // namespace pbserve::kernels
