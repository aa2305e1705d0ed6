// Small integer arithmetic that every floor needs.
#pragma once

#include <concepts>

namespace pbserve::kernels {

template <std::integral T>
constexpr T ceil_div(T value, T unit) {
  return (value + unit - 1) / unit;
}

template <std::integral T>
constexpr T align_up(T value, T unit) {
  return ceil_div(value, unit) * unit;
}

template <std::integral T>
constexpr T align_down(T value, T unit) {
  return value / unit * unit;
}

}  // namespace pbserve::kernels
