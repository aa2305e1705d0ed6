// Frequencies in float32 step by step as `transformers` does it: at position 100,000 one rounding
// more or less turns a head by a hundredth of a radian.
#include "models/rope_scaling.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace pbserve::models {

namespace {

// theta^(2i / D), rounded once.
std::vector<float> wavelength_bases(const RopeConfig& rope, int64_t head_dim) {
  std::vector<float> bases(static_cast<size_t>(head_dim / 2));
  for (size_t i = 0; i < bases.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    bases[i] = static_cast<float>(std::pow(rope.theta, static_cast<double>(exponent)));
  }
  return bases;
}

// Llama 3.1: long waves are stretched by `factor`, short ones kept, the band between is blended.
float llama3_frequency(const RopeConfig& rope, float frequency) {
  const auto length = static_cast<float>(rope.original_max_position);
  const auto low = static_cast<float>(rope.low_freq_factor);
  const auto high = static_cast<float>(rope.high_freq_factor);
  const auto factor = static_cast<float>(rope.factor);
  const float wavelength = 2.0f * std::numbers::pi_v<float> / frequency;
  if (wavelength < length / high) return frequency;
  if (wavelength > length / low) return frequency / factor;
  const float smooth = (length / wavelength - low) / (high - low);
  return (1.0f - smooth) * frequency / factor + smooth * frequency;
}

// YaRN (arXiv 2309.00071): dimensions that turn more than beta_fast times over the trained length
// are kept, those that turn less than beta_slow times are interpolated, with a ramp between.
class YarnRamp {
 public:
  YarnRamp(const RopeConfig& rope, int64_t head_dim) {
    low_ = turning_dim(rope, head_dim, rope.beta_fast);
    high_ = turning_dim(rope, head_dim, rope.beta_slow);
    if (rope.truncate) {
      low_ = std::floor(low_);
      high_ = std::ceil(high_);
    }
    low_ = std::max(low_, 0.0);
    high_ = std::min(high_, static_cast<double>(head_dim - 1));
    if (low_ == high_) high_ += 0.001;
  }

  // 0 = keep, 1 = interpolate.
  float at(size_t pair) const {
    const float offset = static_cast<float>(pair) - static_cast<float>(low_);
    return std::clamp(offset / static_cast<float>(high_ - low_), 0.0f, 1.0f);
  }

 private:
  // The (fractional) pair that makes `turns` full turns over the trained length.
  static double turning_dim(const RopeConfig& rope, int64_t head_dim, double turns) {
    const double length = static_cast<double>(rope.original_max_position);
    return static_cast<double>(head_dim) * std::log(length / (turns * 2.0 * std::numbers::pi)) /
           (2.0 * std::log(rope.theta));
  }

  double low_;
  double high_;
};

float yarn_attention_factor(const RopeConfig& rope) {
  const auto factor_of = [&](double scale) {
    return rope.factor <= 1.0 ? 1.0 : 0.1 * scale * std::log(rope.factor) + 1.0;
  };
  if (rope.attention_factor.has_value()) return static_cast<float>(*rope.attention_factor);
  if (rope.mscale != 0.0 && rope.mscale_all_dim != 0.0) {
    return static_cast<float>(factor_of(rope.mscale) / factor_of(rope.mscale_all_dim));
  }
  return static_cast<float>(factor_of(1.0));
}

}  // namespace

RopeTable make_rope_table(const RopeConfig& rope, int64_t head_dim) {
  RopeTable table;
  table.inv_freq = wavelength_bases(rope, head_dim);
  const YarnRamp ramp(rope, head_dim);
  const auto factor = static_cast<float>(rope.factor);
  for (size_t pair = 0; pair < table.inv_freq.size(); ++pair) {
    float& value = table.inv_freq[pair];
    const float base = value;
    value = 1.0f / base;
    if (rope.type == RopeType::kLinear) value /= factor;
    if (rope.type == RopeType::kLlama3) value = llama3_frequency(rope, value);
    if (rope.type == RopeType::kYarn) {
      const float keep = 1.0f - ramp.at(pair);
      value = 1.0f / (factor * base) * (1.0f - keep) + value * keep;
    }
  }
  if (rope.type == RopeType::kYarn) table.scale = yarn_attention_factor(rope);
  return table;
}

}  // namespace pbserve::models
