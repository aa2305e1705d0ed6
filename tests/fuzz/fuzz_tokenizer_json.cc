// Any text as tokenizer.json and, after a NUL, a text to encode: an error, or ids of the
// vocabulary.
#include <cstdint>
#include <string_view>

#include "kernels/core/check.h"
#include "models/tokenizer/tokenizer_json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t end = input.find('\0');
  const auto root = pbserve::models::parse_json(input.substr(0, end), "fuzz");
  if (!root.ok()) return 0;
  const auto tokenizer = pbserve::models::tokenizer_from_json(*root, "fuzz");
  if (!tokenizer.ok() || end == std::string_view::npos) return 0;
  const auto ids = (*tokenizer)->encode(input.substr(end + 1), {});
  if (!ids.ok()) return 0;
  for (int32_t id : *ids) pbserve::check(id < (*tokenizer)->vocab_size(), "an id is too large");
  (*tokenizer)->decode(*ids, false);
  return 0;
}
