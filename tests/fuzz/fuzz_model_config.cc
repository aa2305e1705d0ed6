// Any text as config.json and, after a NUL, as --hf-overrides: an error, or a model whose rotary
// frequencies are finite.
#include <cmath>
#include <cstdint>
#include <string_view>

#include "kernels/core/check.h"
#include "models/config.h"
#include "models/rope_scaling.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t end = input.find('\0');
  const std::string_view overrides =
      end == std::string_view::npos ? std::string_view() : input.substr(end + 1);
  const auto config = pbserve::models::parse_model_config(input.substr(0, end), overrides, "fuzz");
  if (!config.ok()) return 0;
  pbserve::check(config->num_q_heads % config->num_kv_heads == 0, "groups of heads");
  pbserve::check(config->head_dim % 16 == 0, "head size");
  const auto table = pbserve::models::make_rope_table(config->rope, config->head_dim);
  for (float frequency : table.inv_freq) pbserve::check(std::isfinite(frequency), "frequency");
  pbserve::check(std::isfinite(table.scale), "attention factor");
  return 0;
}
