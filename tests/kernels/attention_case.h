// What the attention tests share: queries and keys with structure, a paged cache in which
// everything that must not be read is poison, and the operations on any backend.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "kernels/ops/attention.h"
#include "tests/reference/attention_ref.h"
#include "tests/support/backends.h"
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

// A backend and a shape that it takes.
struct AttentionTestCase {
  Backend backend;
  AttentionShape shape;
};
std::vector<AttentionTestCase> attention_cases(std::span<const AttentionShape> shapes);
std::string attention_case_name(const ::testing::TestParamInfo<AttentionTestCase>& test);

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
  friend class DeviceCache;
  PagedCache(const AttentionShape& shape, std::span<const Sequence> sequences, int64_t max_pages);
  void write(HostTensor& pages, int64_t sequence, int64_t position, const reference::Heads& from);

  int64_t num_sequences_;
  int64_t num_pages_;
  HostTensor k_pages_, v_pages_, tables_;
};

// A PagedCache as it is at the time, copied to a stream's device. Outlived by both.
class DeviceCache {
 public:
  DeviceCache(const PagedCache& cache, const Stream& stream);

  const Tensor& k_pages() const { return k_pages_.view(); }
  const Tensor& v_pages() const { return v_pages_.view(); }
  const Tensor& block_tables() const { return tables_.view(); }
  const PagedCache& host() const { return host_; }
  const Stream& stream() const { return stream_; }

 private:
  const PagedCache& host_;
  const Stream& stream_;
  DeviceTensor k_pages_, v_pages_, tables_;
};

// out [T, Hq, D] of q [T, Hq, D]; rows outside every segment keep this value.
inline constexpr float kUnwritten = 7.f;
HostTensor run_prefill(const AttentionShape& shape, const DeviceCache& cache, const HostTensor& q,
                       std::span<const kernels::PrefillSegment> segments);

// One row of a decode batch: it sees the first `context_len` positions of a sequence of the cache.
struct DecodeRow {
  int64_t sequence;
  int32_t context_len;
};
enum class DecodeOutput : uint8_t { kOwnTensor, kOverQ };

// out [B, Hq, D] of q [B, Hq, D]. Table entries past a row's context are poison, scratch is too.
HostTensor run_decode(const AttentionShape& shape, const DeviceCache& cache, const HostTensor& q,
                      std::span<const DecodeRow> rows,
                      DecodeOutput output = DecodeOutput::kOwnTensor);

float value_at(const Tensor& tensor, int64_t flat_idx);

// What float32 arithmetic with the hardware's exponential, and weights of bf16 in the second
// product of a prefill, do to values of about 1 on a GPU, beyond what close_to allows by itself.
double decode_error(const Backend& backend);
double prefill_error(const Backend& backend);

// Within the rounding of one store in out's dtype plus float32 arithmetic on values of about 1,
// plus `arithmetic_error`.
::testing::AssertionResult close_to(std::span<const double> expected, const Tensor& out,
                                    int64_t row, int64_t head, double arithmetic_error = 0);

}  // namespace pbserve::test
