// What the attention tests share: queries and keys with structure, and a paged cache in which
// everything that must not be read is poison.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "kernels/ops/rope.h"
#include "tests/reference/attention_ref.h"
#include "tests/support/compare.h"
#include "tests/support/random_tensor.h"

namespace pbserve::test {

using kernels::BF16;
using kernels::DType;
using kernels::kPageSize;
using kernels::Stream;
using kernels::Tensor;

Stream cpu_stream(int num_threads);

struct AttentionShape {
  int64_t num_q_heads;
  int64_t num_kv_heads;
  int64_t head_dim;
  DType dtype;

  float scale() const;
  std::string name() const;
};

// Standard normal values that `dtype` holds exactly. [tokens, heads, D]
reference::Heads random_heads(int64_t tokens, int64_t heads, int64_t dim, DType dtype,
                              std::mt19937& rng);

// Queries and keys of one sequence in which a few directions attract much of the attention, as in
// trained models: each block of queries looks for two of eight topics, each key has one.
struct Sequence {
  reference::Heads q, k, v;  // [L, heads, D]
};
Sequence planted_sequence(const AttentionShape& shape, int64_t len, std::mt19937& rng);

HostTensor to_tensor(const reference::Heads& heads, DType dtype);
// Rows [begin, end), half-open.
reference::Heads rows_of(const reference::Heads& heads, int64_t begin, int64_t end);

// Pages are handed out from the far end of a pool twice as large as needed, interleaved between
// sequences. Unwritten slots hold NaN; table entries past a sequence's pages hold -1 and INT_MAX.
class PagedCache {
 public:
  PagedCache(const AttentionShape& shape, std::span<const Sequence> sequences);

  const Tensor& k_pages() const { return k_pages_.view(); }
  const Tensor& v_pages() const { return v_pages_.view(); }
  const Tensor& block_tables() const { return tables_.view(); }  // [B, max_pages]
  Tensor block_table(int64_t sequence) const { return tables_.view().at(sequence); }

  void poison_keys(int64_t sequence, int64_t begin, int64_t end);  // positions, half-open

 private:
  PagedCache(const AttentionShape& shape, std::span<const Sequence> sequences, int64_t max_pages);
  void write(HostTensor& pages, int64_t sequence, int64_t position, const reference::Heads& from);

  int64_t num_sequences_;
  int64_t num_pages_;
  HostTensor k_pages_, v_pages_, tables_;
};

float value_at(const Tensor& tensor, int64_t flat_idx);

// Within the rounding of one store in out's dtype plus float32 arithmetic on values of about 1.
::testing::AssertionResult close_to(std::span<const double> expected, const Tensor& out,
                                    int64_t row, int64_t head);

}  // namespace pbserve::test
