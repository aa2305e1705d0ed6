#include "tests/bench/long_forward.h"

#include <algorithm>
#include <numeric>

#include "kernels/core/bits.h"
#include "kernels/core/check.h"
#include "kernels/ops/attention.h"

namespace pbserve::bench {

using kernels::ceil_div;
using kernels::DType;
using kernels::kPageSize;
using kernels::PbsInput;
using kernels::PbsJob;
using kernels::PbsParams;
using kernels::Stream;
using kernels::Tensor;

LongForward::LongForward(const models::Transformer& model, int64_t num_tokens_max,
                         const Stream& stream)
    : model_(model),
      stream_(stream),
      num_pages_(ceil_div<int64_t>(num_tokens_max, kPageSize)),
      rows_max_(std::min(kJobRows, num_pages_ * kPageSize)) {
  kernels::Workspace measure;
  lay_out(measure);
  auto buffer = kernels::DeviceBuffer::create(stream.device(), measure.used_bytes());
  check(buffer.ok(), buffer.status().ToString());
  buffer_ = *std::move(buffer);
  kernels::Workspace workspace(buffer_.data(), buffer_.size());
  lay_out(workspace);
  std::vector<int32_t> table(static_cast<size_t>(num_pages_));
  std::iota(table.rbegin(), table.rend(), 0);
  put(block_table_, table.data());
  std::vector<int64_t> own(static_cast<size_t>(rows_max_));
  std::iota(own.begin(), own.end(), 0);
  put(own_slots_, own.data());
}

void LongForward::lay_out(kernels::Workspace& workspace) {
  const models::ModelConfig& config = model_.config();
  const DType dtype = model_.dtype();
  scratch_ = models::LayerScratch::take(config, dtype, rows_max_, workspace);
  hidden_ = workspace.take(DType::kF32, {rows_max_, config.hidden_size});
  q_ = workspace.take(dtype, {rows_max_, config.num_q_heads, config.head_dim});
  ids_ = workspace.take(DType::kI32, {rows_max_});
  positions_ = workspace.take(DType::kI32, {rows_max_});
  slots_ = workspace.take(DType::kI64, {rows_max_});
  own_slots_ = workspace.take(DType::kI64, {rows_max_});
  block_table_ = workspace.take(DType::kI32, {1, num_pages_});
  num_selected_ = workspace.take(DType::kI64, {1});
  logits_ = workspace.take(DType::kF32, {kLastMax, config.vocab_size});
  pages_.resize(static_cast<size_t>(config.num_layers));
  for (kernels::KvPages& pages : pages_) {
    const auto take_keys = [&] {
      return workspace.take(dtype, {num_pages_, config.num_kv_heads, kPageSize, config.head_dim});
    };
    const auto take_moments = [&] {
      return workspace.take(dtype, {num_pages_, config.num_kv_heads, config.head_dim});
    };
    pages = {.k = take_keys(), .v = take_keys(), .k_mean = take_moments(), .k_var = take_moments()};
  }
  plan_ = kernels::take_pbs_plan({.num_q_heads = config.num_q_heads,
                                  .num_kv_heads = config.num_kv_heads,
                                  .head_dim = config.head_dim,
                                  .context_len_max = num_pages_ * kPageSize,
                                  .job_rows_max = rows_max_,
                                  .dtype = dtype},
                                 stream_.device(), workspace);
}

// Waits, so that the values need not outlive the call.
Tensor LongForward::put(Tensor to, const void* values) const {
  kernels::copy_to_device(to.data, values,
                          static_cast<size_t>(to.numel()) * kernels::size_of(to.dtype), stream_);
  stream_.synchronize();
  return to;
}

void LongForward::run_job(std::span<const int32_t> ids, PbsJob job,
                          const std::optional<PbsParams>& params) {
  std::vector<int32_t> positions;
  std::vector<int64_t> slots;
  for (int64_t t = job.begin; t < job.end; ++t) {
    const int64_t page = num_pages_ - 1 - t / kPageSize;
    positions.push_back(static_cast<int32_t>(t));
    slots.push_back(page * kPageSize + t % kPageSize);
  }
  const int64_t num_rows = job.num_rows();
  const Tensor positions_of_job = put(positions_.rows(0, num_rows), positions.data());
  const Tensor in_pages = put(slots_.rows(0, num_rows), slots.data());
  const Tensor hidden = hidden_.rows(0, num_rows);
  const Tensor q = q_.rows(0, num_rows);
  model_.embed(hidden, put(ids_.rows(0, num_rows), ids.data() + job.begin), {}, stream_);
  for (int layer = 0; layer < model_.config().num_layers; ++layer) {
    const kernels::KvPages& pages = pages_[static_cast<size_t>(layer)];
    const models::RowInput rows{positions_of_job, params ? own_slots_.rows(0, num_rows) : in_pages};
    model_.project(layer, rows, hidden, q, params ? plan_.own : pages, scratch_, stream_);
    const PbsInput input{.plan = plan_,
                         .pages = pages,
                         .block_table = block_table_.at(0),
                         .q = q,
                         .job = job,
                         .params = params.value_or(PbsParams{}),
                         .scale = model_.attention_scale()};
    params ? attend(input) : attend_dense(input);
    model_.finish(layer, hidden, q, scratch_, stream_);
  }
}

void LongForward::attend(const PbsInput& input) {
  const int32_t num_blocks = input.job.num_blocks();
  kernels::pbs_order({input}, stream_);
  kernels::pbs_select(
      {.input = input, .block_begin = 0, .block_end = num_blocks, .num_selected = num_selected_},
      stream_);
  kernels::pbs_prefill({.input = input, .block_begin = 0, .block_end = num_blocks, .out = input.q},
                       stream_);
}

void LongForward::attend_dense(const PbsInput& input) {
  const kernels::PrefillSegment segment{
      .row_begin = 0, .num_rows = input.job.num_rows(), .position = input.job.begin, .sequence = 0};
  kernels::prefill_attention({.out = input.q,
                              .q = input.q,
                              .k_pages = input.pages.k,
                              .v_pages = input.pages.v,
                              .block_tables = block_table_,
                              .segments = {&segment, 1},
                              .scale = input.scale},
                             stream_);
}

ForwardResult LongForward::run(std::span<const int32_t> ids, int64_t num_last,
                               const std::optional<PbsParams>& params) {
  const auto num_tokens = static_cast<int32_t>(ids.size());
  check(ceil_div<int64_t>(num_tokens, kPageSize) <= num_pages_, "a prompt longer than the memory");
  kernels::fill_zero(num_selected_.data, sizeof(int64_t), stream_);
  const auto job_rows = static_cast<int32_t>(rows_max_);
  for (int32_t begin = 0; begin < num_tokens; begin += job_rows) {
    run_job(ids,
            {.begin = begin,
             .end = std::min(begin + job_rows, num_tokens),
             .span_len = kSpan,
             .prompt_len = num_tokens},
            params);
  }
  const int64_t rows_of_job = (num_tokens - 1) % rows_max_ + 1;
  check(num_last <= std::min(kLastMax, rows_of_job), "more last rows than the last job has");
  const Tensor logits = logits_.rows(0, num_last);
  model_.logits(logits, hidden_.rows(rows_of_job - num_last, rows_of_job), scratch_, stream_);
  ForwardResult result{.logits = std::vector<float>(static_cast<size_t>(logits.numel())),
                       .density = 1};
  int64_t num_selected = 0;
  kernels::copy_to_host(result.logits.data(), logits.data, result.logits.size() * sizeof(float),
                        stream_);
  kernels::copy_to_host(&num_selected, num_selected_.data, sizeof(num_selected), stream_);
  stream_.synchronize();
  const int64_t num_causal = kernels::num_causal_blocks(
      {0, num_tokens}, model_.config().num_q_heads * model_.config().num_layers);
  if (params) result.density = static_cast<double>(num_selected) / static_cast<double>(num_causal);
  return result;
}

}  // namespace pbserve::bench
