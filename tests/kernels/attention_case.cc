#include "tests/kernels/attention_case.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstring>
#include <limits>
#include <sstream>

#include "kernels/core/bits.h"

namespace pbserve::test {
namespace {

double rounded_to(DType dtype, double value) {
  const auto narrow = static_cast<float>(value);
  return dtype == DType::kBF16 ? to_f32(kernels::from_f32<BF16>(narrow)) : narrow;
}

int64_t pages_of(int64_t len) { return kernels::ceil_div<int64_t>(len, kPageSize); }

// What a block table holds past a sequence's pages.
int32_t poison_entry(int64_t idx) { return idx % 2 == 0 ? -1 : INT_MAX; }

int64_t most_pages(std::span<const Sequence> sequences) {
  int64_t most = 0;
  for (const Sequence& s : sequences) most = std::max(most, pages_of(s.k.num_tokens));
  return most;
}

}  // namespace

Stream cpu_stream(int num_threads) {
  auto stream = Stream::create(kernels::Device{}, num_threads);
  check(stream.ok(), "no CPU stream");
  return *std::move(stream);
}

float AttentionShape::scale() const { return 1.f / std::sqrt(static_cast<float>(head_dim)); }

std::string AttentionShape::name() const {
  std::ostringstream text;
  text << "q" << num_q_heads << "_kv" << num_kv_heads << "_d" << head_dim << "_"
       << kernels::name_of(dtype);
  return text.str();
}

reference::Heads random_heads(int64_t tokens, int64_t heads, int64_t dim, DType dtype,
                              std::mt19937& rng) {
  reference::Heads values(tokens, heads, dim);
  std::normal_distribution<double> normal;
  for (double& x : values.data) x = rounded_to(dtype, normal(rng));
  return values;
}

std::vector<AttentionTestCase> attention_cases(std::span<const AttentionShape> shapes) {
  std::vector<AttentionTestCase> cases;
  for (const Backend& backend : backends()) {
    const bool is_cuda = backend.device.kind == kernels::DeviceKind::kCuda;
    for (const AttentionShape& shape : shapes) {
      const bool is_for_cuda =
          shape.dtype == DType::kBF16 && (shape.head_dim == 64 || shape.head_dim == 128);
      if (!is_cuda || is_for_cuda) cases.push_back({backend, shape});
    }
  }
  return cases;
}

std::string attention_case_name(const ::testing::TestParamInfo<AttentionTestCase>& test) {
  return test.param.backend.name + "_" + test.param.shape.name();
}

Sequence planted_sequence(const AttentionShape& shape, int64_t len, std::mt19937& rng) {
  constexpr int64_t kTopics = 8;
  const int64_t dim = shape.head_dim;
  const auto topics = random_heads(kTopics, 1, dim, DType::kF32, rng);
  Sequence s{.q = random_heads(len, shape.num_q_heads, dim, DType::kF32, rng),
             .k = random_heads(len, shape.num_kv_heads, dim, DType::kF32, rng),
             .v = random_heads(len, shape.num_kv_heads, dim, shape.dtype, rng)};
  std::uniform_int_distribution<int64_t> any_topic(0, kTopics - 1);
  const auto lean = [&](std::span<double> row, int64_t topic, double strength) {
    for (int64_t d = 0; d < dim; ++d) row[d] += strength * topics.at(topic, 0)[d];
  };
  for (int64_t h = 0; h < shape.num_q_heads; ++h) {
    int64_t first = 0, second = 0;
    for (int64_t t = 0; t < len; ++t) {
      if (t % kPageSize == 0) first = any_topic(rng), second = any_topic(rng);
      lean(s.q.at(t, h), first, 0.7);
      lean(s.q.at(t, h), second, 0.5);
    }
  }
  // Low topics are rare, and a key's topic lasts for eight tokens.
  std::geometric_distribution<int64_t> common_topic(0.4);
  for (int64_t h = 0; h < shape.num_kv_heads; ++h) {
    int64_t topic = 0;
    for (int64_t t = 0; t < len; ++t) {
      if (t % 8 == 0) topic = std::max<int64_t>(0, kTopics - 1 - common_topic(rng));
      lean(s.k.at(t, h), topic, 0.6);
    }
  }
  for (double& x : s.q.data) x = rounded_to(shape.dtype, x);
  for (double& x : s.k.data) x = rounded_to(shape.dtype, x);
  return s;
}

HostTensor to_tensor(const reference::Heads& heads, DType dtype) {
  HostTensor tensor(dtype, {heads.num_tokens, heads.num_heads, heads.head_dim});
  for (int64_t i = 0; i < tensor.view().numel(); ++i) tensor.set(i, heads.data[i]);
  return tensor;
}

reference::Heads rows_of(const reference::Heads& heads, int64_t begin, int64_t end) {
  reference::Heads rows(end - begin, heads.num_heads, heads.head_dim);
  const int64_t width = heads.num_heads * heads.head_dim;
  std::copy(heads.data.begin() + begin * width, heads.data.begin() + end * width,
            rows.data.begin());
  return rows;
}

PagedCache::PagedCache(const AttentionShape& shape, std::span<const Sequence> sequences)
    : PagedCache(shape, sequences, most_pages(sequences)) {}

PagedCache::PagedCache(const AttentionShape& shape, std::span<const Sequence> sequences,
                       int64_t max_pages)
    : num_sequences_(static_cast<int64_t>(sequences.size())),
      num_pages_(2 * max_pages * num_sequences_ + 1),
      k_pages_(poisoned(shape.dtype, {num_pages_, shape.num_kv_heads, kPageSize, shape.head_dim})),
      v_pages_(k_pages_),
      tables_(DType::kI32, {num_sequences_, max_pages + 2}) {
  for (int64_t b = 0; b < num_sequences_; ++b) {
    const int64_t len = sequences[b].k.num_tokens;
    auto* table = block_table(b).as<int32_t>();
    for (int64_t i = 0; i < max_pages + 2; ++i) table[i] = poison_entry(i);
    for (int64_t i = 0; i < pages_of(len); ++i) {
      table[i] = static_cast<int32_t>(num_pages_ - 2 - 2 * (i * num_sequences_ + b));
    }
    for (int64_t t = 0; t < len; ++t) {
      write(k_pages_, b, t, sequences[b].k);
      write(v_pages_, b, t, sequences[b].v);
    }
  }
}

void PagedCache::write(HostTensor& pages, int64_t sequence, int64_t position,
                       const reference::Heads& from) {
  const Tensor& view = pages.view();
  const int32_t page = block_table(sequence).as<int32_t>()[position / kPageSize];
  for (int64_t h = 0; h < from.num_heads; ++h) {
    const int64_t slot =
        page * view.stride[0] + h * view.stride[1] + position % kPageSize * view.stride[2];
    const auto row = from.at(position, h);
    for (int64_t d = 0; d < from.head_dim; ++d) pages.set(slot + d, row[d]);
  }
}

void PagedCache::poison_keys(int64_t sequence, int64_t begin, int64_t end) {
  reference::Heads poison(end, k_pages().dim(1), k_pages().dim(3));
  std::ranges::fill(poison.data, std::numeric_limits<double>::quiet_NaN());
  for (int64_t t = begin; t < end; ++t) {
    write(k_pages_, sequence, t, poison);
    write(v_pages_, sequence, t, poison);
  }
}

DeviceCache::DeviceCache(const PagedCache& cache, const Stream& stream)
    : host_(cache),
      stream_(stream),
      k_pages_(cache.k_pages_, stream),
      v_pages_(cache.v_pages_, stream),
      tables_(cache.tables_, stream) {}

HostTensor run_prefill(const AttentionShape& shape, const DeviceCache& cache, const HostTensor& q,
                       std::span<const kernels::PrefillSegment> segments) {
  const DeviceTensor queries(q, cache.stream());
  const HostTensor unwritten =
      filled(shape.dtype, {q.view().dim(0), q.view().dim(1), q.view().dim(2)}, kUnwritten);
  const DeviceTensor out(unwritten, cache.stream());
  prefill_attention({.out = out.view(),
                     .q = queries.view(),
                     .k_pages = cache.k_pages(),
                     .v_pages = cache.v_pages(),
                     .block_tables = cache.block_tables(),
                     .segments = segments,
                     .scale = shape.scale()},
                    cache.stream());
  return out.read();
}

HostTensor run_decode(const AttentionShape& shape, const DeviceCache& cache, const HostTensor& q,
                      std::span<const DecodeRow> rows, DecodeOutput output) {
  const auto num_rows = static_cast<int64_t>(rows.size());
  const int64_t max_pages = cache.host().block_tables().dim(1);
  HostTensor tables(DType::kI32, {num_rows, max_pages});
  HostTensor lens(DType::kI32, {num_rows});
  for (int64_t b = 0; b < num_rows; ++b) {
    const auto* from = cache.host().block_table(rows[b].sequence).as<int32_t>();
    auto* table = tables.view().as<int32_t>() + b * max_pages;
    for (int64_t i = 0; i < max_pages; ++i) {
      table[i] = i < pages_of(rows[b].context_len) ? from[i] : poison_entry(i);
    }
    lens.view().as<int32_t>()[b] = rows[b].context_len;
  }
  const Stream& stream = cache.stream();
  HostTensor poison(DType::kU8,
                    {decode_scratch_bytes(stream.device(), {.num_rows_max = num_rows,
                                                            .num_q_heads = shape.num_q_heads,
                                                            .head_dim = shape.head_dim})});
  if (poison.num_bytes() > 0) std::memset(poison.view().data, 0xff, poison.num_bytes());
  const DeviceTensor scratch(poison, stream);
  const DeviceTensor queries(q, stream);
  const DeviceTensor own_out(poisoned(shape.dtype, {num_rows, shape.num_q_heads, shape.head_dim}),
                             stream);
  const DeviceTensor& out = output == DecodeOutput::kOverQ ? queries : own_out;
  const DeviceTensor device_tables(tables, stream);
  const DeviceTensor device_lens(lens, stream);
  decode_attention({.out = out.view(),
                    .q = queries.view(),
                    .k_pages = cache.k_pages(),
                    .v_pages = cache.v_pages(),
                    .block_tables = device_tables.view(),
                    .context_lens = device_lens.view(),
                    .scratch = scratch.view(),
                    .scale = shape.scale()},
                   stream);
  return out.read();
}

float value_at(const Tensor& tensor, int64_t flat_idx) {
  return tensor.dtype == DType::kBF16 ? to_f32(tensor.as<BF16>()[flat_idx])
                                      : tensor.as<float>()[flat_idx];
}

double decode_error(const Backend& backend) {
  return backend.device.kind == kernels::DeviceKind::kCuda ? 2e-5 : 0;
}

double prefill_error(const Backend& backend) {
  return backend.device.kind == kernels::DeviceKind::kCuda ? 0x1p-8 : 0;
}

::testing::AssertionResult close_to(std::span<const double> expected, const Tensor& out,
                                    int64_t row, int64_t head, double arithmetic_error) {
  const Tensor actual = out.at(row).rows(head, head + 1);
  std::vector<double> values;
  std::vector<double> forgiven(expected.begin(), expected.end());  // moved towards the result
  for (int64_t d = 0; d < actual.numel(); ++d) {
    values.push_back(value_at(actual, d));
    if (std::isnan(values[d])) continue;
    forgiven[d] += std::clamp(values[d] - expected[d], -arithmetic_error, arithmetic_error);
  }
  const Tolerance tolerance = out.dtype == DType::kBF16
                                  ? Tolerance{.absolute = 2e-5, .relative = 1.02 * 0x1p-8}
                                  : Tolerance{.absolute = 1e-5, .relative = 1e-5};
  auto result = all_close(forgiven, values, tolerance);
  if (!result) result << " (row " << row << ", head " << head << ")";
  return result;
}

}  // namespace pbserve::test
