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

PbsCase::PbsCase(const AttentionShape& attention_shape, PbsSpan query_span, const PbsParams& params,
                 unsigned seed)
    : PbsCase(attention_shape, query_span, params,
              seeded_sequence(attention_shape, query_span.end, seed)) {}

PbsCase::PbsCase(const AttentionShape& attention_shape, PbsSpan query_span, const PbsParams& params,
                 const Sequence& sequence)
    : shape(attention_shape),
      span(query_span),
      problem_{.q = rows_of(sequence.q, span.begin, span.end),
               .k = rows_of(sequence.k, 0, span.end),
               .v = rows_of(sequence.v, 0, span.end),
               .begin = span.begin,
               .params = params,
               .scale = double(shape.scale())},
      cache_(shape, std::vector{first_tokens(sequence, span.end)}),
      q_(to_tensor(problem_.q, shape.dtype)),
      out_(shape.dtype, {span.num_rows(), shape.num_q_heads, shape.head_dim}),
      num_selected_(DType::kI64, {1}) {
  const kernels::PbsPlanShape plan_shape{.num_q_heads = shape.num_q_heads,
                                         .num_kv_heads = shape.num_kv_heads,
                                         .head_dim = shape.head_dim,
                                         .context_len_max = span.end,
                                         .span_len_max = span.num_rows(),
                                         .dtype = shape.dtype};
  kernels::Workspace measure;
  take_pbs_plan(plan_shape, kernels::Device{}, measure);
  plan_memory_ = *kernels::DeviceBuffer::create(kernels::Device{}, measure.used_bytes());
  std::memset(plan_memory_.data(), 0xFF, plan_memory_.size());
  kernels::Workspace workspace(plan_memory_.data(), plan_memory_.size());
  plan_ = take_pbs_plan(plan_shape, kernels::Device{}, workspace);
}

void PbsCase::order(int num_threads) {
  pbs_order({.plan = plan_,
             .q = q_.view(),
             .k_pages = cache_.k_pages(),
             .v_pages = cache_.v_pages(),
             .block_table = cache_.block_table(0),
             .span = span,
             .params = problem_.params,
             .scale = shape.scale()},
            cpu_stream(num_threads));
}

int64_t PbsCase::select(int64_t block_begin, int64_t block_end, int num_threads) {
  constexpr int64_t kBefore = 1000;  // the operation adds
  num_selected_.view().as<int64_t>()[0] = kBefore;
  pbs_select({.plan = plan_,
              .q = q_.view(),
              .span = span,
              .block_begin = static_cast<int32_t>(block_begin),
              .block_end = static_cast<int32_t>(block_end),
              .num_selected = num_selected_.view(),
              .params = problem_.params,
              .scale = shape.scale()},
             cpu_stream(num_threads));
  return num_selected_.view().as<int64_t>()[0] - kBefore;
}

void PbsCase::prefill(int64_t block_begin, int64_t block_end, int num_threads) {
  pbs_prefill({.out = out_.view(),
               .plan = plan_,
               .q = q_.view(),
               .k_pages = cache_.k_pages(),
               .v_pages = cache_.v_pages(),
               .block_table = cache_.block_table(0),
               .span = span,
               .block_begin = static_cast<int32_t>(block_begin),
               .block_end = static_cast<int32_t>(block_end),
               .segment = problem_.params.segment,
               .scale = shape.scale()},
              cpu_stream(num_threads));
}

HostTensor PbsCase::dense() const {
  HostTensor out(shape.dtype, {span.num_rows(), shape.num_q_heads, shape.head_dim});
  const kernels::PrefillSegment segment{
      .row_begin = 0, .num_rows = span.num_rows(), .position = span.begin, .sequence = 0};
  prefill_attention({.out = out.view(),
                     .q = q_.view(),
                     .k_pages = cache_.k_pages(),
                     .v_pages = cache_.v_pages(),
                     .block_tables = cache_.block_tables(),
                     .segments = {&segment, 1},
                     .scale = shape.scale()},
                    cpu_stream(2));
  return out;
}

reference::Order PbsCase::kernel_order() const {
  reference::Order order(shape.num_kv_heads);
  for (int64_t h = 0; h < shape.num_kv_heads; ++h) {
    const Tensor row = plan_.order.at(h);
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
      const Tensor row = plan_.mask.at(h).at(block);
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
        const auto result = close_to(expected, pbs.out(), r, h);
        if (!result) return result;
      }
    }
  }
  return ::testing::AssertionSuccess();
}

}  // namespace pbserve::test
