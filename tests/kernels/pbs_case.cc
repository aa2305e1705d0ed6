#include "tests/kernels/pbs_case.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <tuple>

#include "kernels/core/workspace.h"
#include "kernels/ops/attention.h"

namespace pbserve::test {
namespace {

// Made once per process: drawing numbers would take most of the tests' time.
const Sequence& seeded_sequence(const AttentionShape& shape, int64_t len, unsigned seed) {
  static std::map<std::tuple<std::string, unsigned, int64_t>, Sequence> sequences;
  const int64_t enough = kernels::align_up<int64_t>(len, 2 * kTestSpan);
  const auto [entry, is_missing] = sequences.try_emplace({shape.name(), seed, enough});
  if (is_missing) {
    std::mt19937 rng(seed);
    entry->second = planted_sequence(shape, enough, rng);
  }
  return entry->second;
}

Sequence first_tokens(const Sequence& sequence, int64_t len) {
  return {.q = rows_of(sequence.q, 0, len),
          .k = rows_of(sequence.k, 0, len),
          .v = rows_of(sequence.v, 0, len)};
}

}  // namespace

std::vector<PbsSpan> spans_of(int32_t prompt_len, int32_t span_len) {
  std::vector<PbsSpan> spans;
  for (int32_t begin = 0; begin < prompt_len; begin += span_len) {
    spans.push_back({begin, std::min(begin + span_len, prompt_len)});
  }
  return spans;
}

DType widest_dtype(const Backend& backend) {
  return backend.device.kind == kernels::DeviceKind::kCuda ? DType::kBF16 : DType::kF32;
}

PbsCase::PbsCase(const Stream& stream, const AttentionShape& attention_shape, PbsSpan query_span,
                 const PbsParams& params, unsigned seed)
    : PbsCase(stream, attention_shape, query_span, params,
              seeded_sequence(attention_shape, query_span.end, seed)) {}

PbsCase::PbsCase(const Stream& stream, const AttentionShape& attention_shape, PbsSpan query_span,
                 const PbsParams& params, const Sequence& sequence)
    : shape(attention_shape),
      span(query_span),
      stream_(stream),
      problem_{.q = rows_of(sequence.q, span.begin, span.end),
               .k = rows_of(sequence.k, 0, span.end),
               .v = rows_of(sequence.v, 0, span.end),
               .begin = span.begin,
               .params = params,
               .scale = double(shape.scale())},
      cache_(shape, std::vector{first_tokens(sequence, span.end)}),
      q_(to_tensor(problem_.q, shape.dtype)),
      out_(shape.dtype, {span.num_rows(), shape.num_q_heads, shape.head_dim}),
      device_q_(q_, stream),
      device_out_(out_, stream) {
  kernels::Workspace measure;
  take_pbs_plan(plan_shape(), stream_.device(), measure);
  plan_memory_ = *kernels::DeviceBuffer::create(stream_.device(), measure.used_bytes());
  host_plan_memory_ = *kernels::DeviceBuffer::create(kernels::Device{}, measure.used_bytes());
  kernels::Workspace workspace(plan_memory_.data(), plan_memory_.size());
  plan_ = take_pbs_plan(plan_shape(), stream_.device(), workspace);
  kernels::Workspace host_workspace(host_plan_memory_.data(), host_plan_memory_.size());
  host_plan_ = take_pbs_plan(plan_shape(), stream_.device(), host_workspace);
  std::memset(host_plan_memory_.data(), 0xFF, host_plan_memory_.size());
  upload_plan();
}

kernels::PbsPlanShape PbsCase::plan_shape() const {
  return {.num_q_heads = shape.num_q_heads,
          .num_kv_heads = shape.num_kv_heads,
          .head_dim = shape.head_dim,
          .context_len_max = span.end,
          .span_len_max = span.num_rows(),
          .dtype = shape.dtype};
}

void PbsCase::upload_plan() {
  copy_to_device(plan_memory_.data(), host_plan_memory_.data(), plan_memory_.size(), stream_);
  stream_.synchronize();
}

void PbsCase::download_plan() {
  copy_to_host(host_plan_memory_.data(), plan_memory_.data(), plan_memory_.size(), stream_);
  stream_.synchronize();
}

void PbsCase::limit_scratch(int64_t num_bytes) {
  plan_.scratch = plan_.scratch.rows(0, std::min(num_bytes, plan_.scratch.numel()));
}

void PbsCase::order() {
  const DeviceCache cache(cache_, stream_);
  pbs_order({.plan = plan_,
             .q = device_q_.view(),
             .k_pages = cache.k_pages(),
             .v_pages = cache.v_pages(),
             .block_table = cache.block_tables().at(0),
             .span = span,
             .params = problem_.params,
             .scale = shape.scale()},
            stream_);
  download_plan();
}

int64_t PbsCase::select(int64_t block_begin, int64_t block_end) {
  constexpr int64_t kBefore = 1000;  // the operation adds
  const DeviceTensor num_selected(tensor_of<int64_t>({kBefore}), stream_);
  pbs_select({.plan = plan_,
              .q = device_q_.view(),
              .span = span,
              .block_begin = static_cast<int32_t>(block_begin),
              .block_end = static_cast<int32_t>(block_end),
              .num_selected = num_selected.view(),
              .params = problem_.params,
              .scale = shape.scale()},
             stream_);
  download_plan();
  return num_selected.read().view().as<int64_t>()[0] - kBefore;
}

void PbsCase::prefill(int64_t block_begin, int64_t block_end) {
  const DeviceCache cache(cache_, stream_);
  pbs_prefill({.out = device_out_.view(),
               .plan = plan_,
               .q = device_q_.view(),
               .k_pages = cache.k_pages(),
               .v_pages = cache.v_pages(),
               .block_table = cache.block_tables().at(0),
               .span = span,
               .block_begin = static_cast<int32_t>(block_begin),
               .block_end = static_cast<int32_t>(block_end),
               .segment = problem_.params.segment,
               .scale = shape.scale()},
              stream_);
  const HostTensor out = device_out_.read();
  std::memcpy(out_.view().data, out.view().data, out.num_bytes());
}

HostTensor PbsCase::dense() const {
  const kernels::PrefillSegment segment{
      .row_begin = 0, .num_rows = span.num_rows(), .position = span.begin, .sequence = 0};
  return run_prefill(shape, DeviceCache(cache_, stream_), q_, {&segment, 1});
}

double PbsCase::arithmetic_error() const {
  return prefill_error({.name = {}, .device = stream_.device()});
}

reference::Order PbsCase::kernel_order() const {
  reference::Order order(shape.num_kv_heads);
  for (int64_t h = 0; h < shape.num_kv_heads; ++h) {
    const Tensor row = host_plan_.order.at(h);
    for (int64_t place = 0; place < problem_.num_ordered(); ++place) {
      const int64_t base = place / problem_.params.segment * problem_.params.segment;
      order[h].push_back(base + row.as<uint8_t>()[place]);
    }
  }
  return order;
}

reference::Taken PbsCase::kernel_taken() const {
  reference::Taken taken(shape.num_q_heads);
  for (int64_t h = 0; h < shape.num_q_heads; ++h) {
    for (int64_t block = 0; block < problem_.num_query_blocks(); ++block) {
      const Tensor row = host_plan_.mask.at(h).at(block);
      std::vector<bool> bits;
      for (int64_t j = 0; j < problem_.num_candidates(block); ++j) {
        bits.push_back(row.as<uint32_t>()[j / 32] >> (j % 32) & 1u);
      }
      taken[h].push_back(bits);
    }
  }
  return taken;
}

::testing::AssertionResult output_matches(const PbsCase& pbs, int64_t row_step) {
  const auto order = pbs.kernel_order();
  const auto taken = pbs.kernel_taken();
  const int64_t num_rows = pbs.span.num_rows();
  for (int64_t row = 0; row < num_rows; row += row_step) {
    for (int64_t h = 0; h < pbs.shape.num_q_heads; ++h) {
      for (int64_t r : {row, num_rows - 1}) {
        const auto expected = reference::pbs_row_ref(pbs.problem(), order, taken, h, r);
        const auto result = close_to(expected, pbs.out(), r, h, pbs.arithmetic_error());
        if (!result) return result;
      }
    }
  }
  return ::testing::AssertionSuccess();
}

}  // namespace pbserve::test
