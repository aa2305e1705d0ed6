// Token -> id, looked up by views. (Debian's Abseil has a string_view of its own, so that its
// default hash does not take std::string_view.)
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "absl/hash/hash.h"

namespace pbserve::models {

struct TokenHash {
  using is_transparent = void;
  size_t operator()(std::string_view token) const { return absl::Hash<std::string_view>{}(token); }
};

using TokenMap = absl::flat_hash_map<std::string, int32_t, TokenHash, std::equal_to<>>;

}  // namespace pbserve::models
