// Word -> ids, for the short words that make up most text. Two fixed slots for each hash, the later
// word first: bounded by construction, no allocation, one or two cache lines a lookup. Owned by one
// thread.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "absl/hash/hash.h"

namespace pbserve::models {

class WordCache {
 public:
  static constexpr size_t kWordBytesMax = 22;
  static constexpr size_t kIdsMax = 10;

  // Appends the ids of `word` if it is cached.
  bool lookup(std::string_view word, std::vector<int32_t>* ids) const {
    if (pairs_.empty() || word.size() > kWordBytesMax) return false;
    for (const Slot& slot : pairs_[pair_of(word)]) {
      if (slot.num_bytes != word.size()) continue;
      if (std::memcmp(slot.bytes.data(), word.data(), word.size()) != 0) continue;
      ids->insert(ids->end(), slot.ids.begin(), slot.ids.begin() + slot.num_ids);
      return true;
    }
    return false;
  }

  // Pushes out the older of the two words that share the hash. Words and results that do not fit
  // are not kept. REQUIRES: `word` is not cached.
  void insert(std::string_view word, std::span<const int32_t> ids) {
    if (word.empty() || word.size() > kWordBytesMax || ids.size() > kIdsMax) return;
    if (pairs_.empty()) pairs_.resize(kNumPairs);
    auto& [later, earlier] = pairs_[pair_of(word)];
    earlier = later;
    later.num_bytes = static_cast<uint8_t>(word.size());
    later.num_ids = static_cast<uint8_t>(ids.size());
    std::copy(word.begin(), word.end(), later.bytes.begin());
    std::copy(ids.begin(), ids.end(), later.ids.begin());
  }

 private:
  struct alignas(64) Slot {
    uint8_t num_bytes = 0;  // 0: empty
    uint8_t num_ids = 0;
    std::array<char, kWordBytesMax> bytes{};
    std::array<int32_t, kIdsMax> ids{};
  };
  static_assert(sizeof(Slot) == 64);

  // 4 MiB. A book has some 20,000 different words.
  static constexpr size_t kNumPairs = 1 << 15;

  static size_t pair_of(std::string_view word) {
    return absl::Hash<std::string_view>{}(word) & (kNumPairs - 1);
  }

  std::vector<std::array<Slot, 2>> pairs_;
};

}  // namespace pbserve::models
