// The safetensors format: 8 bytes of header length, a JSON header of names, types, shapes and byte
// ranges, then the bytes. Parsing checks everything a hostile file could lie about; what comes out
// points into the file's image.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/status.h"

namespace pbserve::models {

struct StoredTensor {
  std::string dtype;           // as in the file: "BF16", "F16", "F32", ...
  std::vector<int64_t> shape;  // at most 4 dimensions
  const std::byte* data;       // row-major, little-endian; may be unaligned
  size_t num_bytes;
};

using StoredTensors = std::map<std::string, StoredTensor, std::less<>>;

// Parses a whole file's image; `what` names it in errors. The byte ranges cover the data exactly:
// no overlap, no hole, no rest.
absl::StatusOr<StoredTensors> parse_safetensors(std::span<const std::byte> image,
                                                std::string_view what);

}  // namespace pbserve::models
