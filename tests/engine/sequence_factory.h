// Sequences and pools of a few pages, for tests of everything between request and device.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/kv_cache_pool.h"
#include "engine/sequence.h"

namespace pbserve::engine {

inline std::unique_ptr<KvCachePool> make_pool(int64_t num_pages) {
  const KvCacheShape shape{
      .num_layers = 1, .num_kv_heads = 1, .head_dim = 16, .dtype = kernels::DType::kBF16};
  auto pool = KvCachePool::create(kernels::Device{}, shape, num_pages);
  check(pool.ok(), "test pool");
  return *std::move(pool);
}

// `stream` outlives the pool.
inline std::unique_ptr<KvCachePool> make_pool(const kernels::Stream& stream,
                                              const KvCacheOptions& options) {
  const KvCacheShape shape{
      .num_layers = 1, .num_kv_heads = 1, .head_dim = 16, .dtype = kernels::DType::kBF16};
  auto pool = KvCachePool::create(stream, shape, options);
  check(pool.ok(), "test pool");
  return *std::move(pool);
}

// Prompt ids count up from `first`, so that sequences share a prefix exactly if they share `first`.
inline SequenceSpec make_spec(SequenceId id, int64_t num_prompt, int64_t num_output,
                              int32_t first = 0) {
  SequenceSpec spec;
  spec.id = id;
  for (int64_t i = 0; i < num_prompt; ++i) {
    spec.prompt.push_back(first + static_cast<int32_t>(i));
  }
  spec.num_tokens_max = num_prompt + num_output;
  spec.num_tokens_min = num_prompt;
  spec.cache_root = "dense|";
  spec.submitted = Clock::now();
  return spec;
}

}  // namespace pbserve::engine
