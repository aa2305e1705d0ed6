// Tests of the KV cache pool: pages named by letters, and what is in them.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/kv_cache_pool.h"
#include "kernels/ops/rope.h"

namespace pbserve::engine {

// One full page of tokens for each letter.
inline std::vector<int32_t> tokens_of(const std::string& letters) {
  std::vector<int32_t> tokens;
  for (const char letter : letters) tokens.insert(tokens.end(), kernels::kPageSize, letter);
  return tokens;
}

inline int32_t num_found(const KvCachePool& pool, std::string_view root,
                         const std::string& letters) {
  PrefixMatch match;
  pool.refresh(root, tokens_of(letters), match);
  return match.num_pages();
}

// Takes all that is found and returns its number; 0 where the device has no room for it.
inline int32_t acquire_all(KvCachePool& pool, std::string_view root,
                           std::span<const int32_t> tokens, BlockTable& table) {
  PrefixMatch match;
  pool.refresh(root, tokens, match);
  return pool.acquire(match, match.num_pages(), table) ? match.num_pages() : 0;
}

// All of one page's K or V in one layer.
inline std::span<float> tile(const kernels::Tensor& pages, int32_t page) {
  return {pages.at(page).as<float>(), static_cast<size_t>(pages.at(page).numel())};
}

// Of all layers.
inline std::vector<std::span<float>> parts_of(const KvCachePool& pool, int32_t page,
                                              int64_t num_layers) {
  std::vector<std::span<float>> parts;
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    const models::KvPages pages = pool.layer(layer);
    for (const kernels::Tensor& part : {pages.k, pages.v, pages.k_mean, pages.k_var}) {
      parts.push_back(tile(part, page));
    }
  }
  return parts;
}

inline bool is_poisoned(const KvCachePool& pool, int32_t page, int64_t num_layers = 2) {
  return std::ranges::all_of(parts_of(pool, page, num_layers), [](std::span<const float> part) {
    return std::ranges::all_of(part, [](float x) { return std::isnan(x); });
  });
}

inline void fill(const KvCachePool& pool, int32_t page, float value, int64_t num_layers = 2) {
  for (std::span<float> part : parts_of(pool, page, num_layers)) std::ranges::fill(part, value);
}

}  // namespace pbserve::engine
