#include "kernels/core/dtype.h"

#include <cmath>
#include <limits>

namespace pbserve::kernels {

float f16_bits_to_f32(uint16_t bits) {
  constexpr int kMantissaBits = 10;
  constexpr int kBias = 15;
  const int exponent = (bits >> kMantissaBits) & 0x1f;
  const int mantissa = bits & 0x3ff;
  const float sign = (bits & 0x8000) != 0 ? -1.f : 1.f;
  if (exponent == 0x1f) {
    return mantissa != 0 ? std::numeric_limits<float>::quiet_NaN()
                         : sign * std::numeric_limits<float>::infinity();
  }
  // Subnormals share the smallest normal's exponent and lack the implicit leading one.
  const int significand = exponent == 0 ? mantissa : mantissa | (1 << kMantissaBits);
  const int power = (exponent == 0 ? 1 : exponent) - kBias - kMantissaBits;
  return sign * std::ldexp(static_cast<float>(significand), power);
}

}  // namespace pbserve::kernels
