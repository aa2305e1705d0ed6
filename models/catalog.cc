#include "models/catalog.h"

#include <array>

#include "absl/strings/str_join.h"

namespace pbserve::models {

namespace {

constexpr std::array<Architecture, 3> kArchitectures = {{
    {.name = "LlamaForCausalLM", .read_config = read_llama_config},
    {.name = "Qwen2ForCausalLM", .read_config = read_qwen2_config},
    {.name = "Qwen3ForCausalLM", .read_config = read_qwen3_config},
}};

}  // namespace

const Architecture* find_architecture(std::string_view name) {
  for (const Architecture& architecture : kArchitectures) {
    if (architecture.name == name) return &architecture;
  }
  return nullptr;
}

std::string architecture_names() {
  return absl::StrJoin(
      kArchitectures, ", ",
      [](std::string* out, const Architecture& architecture) { out->append(architecture.name); });
}

}  // namespace pbserve::models
