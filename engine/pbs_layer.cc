#include "engine/pbs_layer.h"

#include "kernels/core/buffer.h"
#include "kernels/ops/pbs_force.h"

namespace pbserve::engine {

using kernels::DType;
using kernels::kPbsBlock;
using kernels::Stream;

PbsCounts PbsCounts::take(int64_t num_layers, int64_t num_q_heads, kernels::Workspace& workspace) {
  PbsCounts counts;
  counts.rows_ = workspace.take(DType::kI64, {num_layers + 1, 1 + num_q_heads});
  return counts;
}

size_t PbsCounts::num_bytes(int64_t num_layers, int64_t num_q_heads) {
  return static_cast<size_t>(num_layers * (1 + num_q_heads)) * sizeof(int64_t);
}

void PbsCounts::clear(const Stream& stream) const {
  kernels::fill_zero(rows_.data, rows_.numel() * sizeof(int64_t), stream);
}

void PbsCounts::copy_to_host(std::byte* to, const Stream& stream) const {
  kernels::copy_to_host(to, rows_.data, num_bytes(rows_.dim(0) - 1, rows_.dim(1) - 1), stream);
}

void PbsCounts::complete(ChunkReport& report, const std::vector<bool>& is_pbs,
                         const std::byte* from) {
  const auto* counts = reinterpret_cast<const int64_t*>(from);
  const auto num_heads = static_cast<size_t>(report.coverage.num_heads);
  report.coverage.sums.resize(is_pbs.size() * num_heads);
  for (size_t layer = 0; layer < is_pbs.size(); ++layer) {
    const int64_t* row = counts + layer * (1 + num_heads);
    if (!is_pbs[layer]) continue;
    report.blocks.attended[layer] = row[0];
    for (size_t head = 0; head < num_heads; ++head) {
      report.coverage.sums[layer * num_heads + head] = static_cast<double>(row[1 + head]) * 0x1p-32;
    }
  }
}

void PbsLayer::order(bool pools_prefix, const Stream& stream) const {
  if (pools_prefix) {
    kernels::pbs_pool({.pages = input.pages,
                       .block_table = input.block_table,
                       .num_pages = input.job.begin / kPbsBlock},
                      stream);
  }
  kernels::pbs_order({input}, stream);
}

void PbsLayer::attend(int32_t block_begin, int32_t block_end, const Stream& stream) const {
  const bool is_forced = options.force_density > 0;
  kernels::pbs_select({.input = input,
                       .block_begin = block_begin,
                       .block_end = block_end,
                       .num_selected = is_forced ? counts.dropped() : counts.attended(layer)},
                      stream);
  if (is_forced) {
    kernels::pbs_force_mask({.mask = input.plan.mask,
                             .job = input.job,
                             .block_begin = block_begin,
                             .block_end = block_end,
                             .num_selected = counts.attended(layer),
                             .segment = input.params.segment,
                             .density = options.force_density},
                            stream);
  }
  if (options.audit > 0) {
    kernels::pbs_audit({.input = input,
                        .block_begin = block_begin,
                        .block_end = block_end,
                        .period = options.audit,
                        .coverage = counts.coverage(layer)},
                       stream);
  }
  kernels::pbs_prefill(
      {.input = input, .block_begin = block_begin, .block_end = block_end, .out = input.q}, stream);
}

}  // namespace pbserve::engine
