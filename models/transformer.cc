#include "models/transformer.h"

#include <cmath>

#include "kernels/core/check.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/linear.h"
#include "kernels/ops/norm.h"
#include "kernels/ops/rope.h"
#include "kernels/ops/swiglu.h"

namespace pbserve::models {

using kernels::DeviceBuffer;
using kernels::DType;
using kernels::Stream;
using kernels::Tensor;

LayerScratch LayerScratch::take(const ModelConfig& config, DType dtype, int64_t rows_max,
                                kernels::Workspace& workspace) {
  const int64_t qkv_size = (config.num_q_heads + 2 * config.num_kv_heads) * config.head_dim;
  return {
      .normed = workspace.take(dtype, {rows_max, config.hidden_size}),
      .qkv = workspace.take(dtype, {rows_max, qkv_size}),
      .output = workspace.take(dtype, {rows_max, config.hidden_size}),
      .gate_up = workspace.take(dtype, {rows_max, 2 * config.intermediate_size}),
      .gated = workspace.take(dtype, {rows_max, config.intermediate_size}),
  };
}

absl::StatusOr<Transformer> Transformer::create(const ModelConfig& config, WeightStore weights,
                                                const Stream& stream) {
  const RopeTable table = make_rope_table(config.rope, config.head_dim);
  const size_t num_bytes = table.inv_freq.size() * sizeof(float);
  ASSIGN_OR_RETURN(DeviceBuffer inv_freq, DeviceBuffer::create(stream.device(), num_bytes));
  kernels::copy_to_device(inv_freq.data(), table.inv_freq.data(), num_bytes, stream);
  stream.synchronize();
  return Transformer(config, std::move(weights), std::move(inv_freq), table.scale);
}

Transformer::Transformer(const ModelConfig& config, WeightStore weights, DeviceBuffer inv_freq,
                         float rope_scale)
    : config_(config),
      weights_(std::move(weights)),
      inv_freq_(std::move(inv_freq)),
      rope_scale_(rope_scale) {
  check_eq(static_cast<int64_t>(weights_.layers.size()), config_.num_layers, "layers of weights");
}

float Transformer::attention_scale() const {
  return 1.0f / std::sqrt(static_cast<float>(config_.head_dim));
}

void Transformer::embed(Tensor hidden, Tensor ids, Tensor index, const Stream& stream) const {
  kernels::embedding({.y = hidden, .ids = ids, .index = index, .table = weights_.embedding},
                     stream);
}

void Transformer::project(int layer, const RowInput& rows, Tensor hidden, Tensor q,
                          const KvPages& pages, const LayerScratch& scratch,
                          const Stream& stream) const {
  const LayerWeights& weights = weights_.layers[static_cast<size_t>(layer)];
  const int64_t num_rows = hidden.dim(0);
  const int64_t num_heads = config_.num_q_heads + 2 * config_.num_kv_heads;
  const Tensor normed = scratch.normed.rows(0, num_rows);
  const Tensor qkv = scratch.qkv.rows(0, num_rows);

  kernels::rms_norm({.y = normed,
                     .x = {},
                     .weight = weights.attn_norm,
                     .residual = hidden,
                     .eps = config_.norm_eps},
                    stream);
  kernels::linear({.y = qkv, .x = normed, .weight = weights.qkv, .bias = weights.qkv_bias}, stream);
  kernels::rope_append({.q = q,
                        .k_pages = pages.k,
                        .v_pages = pages.v,
                        .qkv = qkv.reshape({num_rows, num_heads, config_.head_dim}),
                        .q_norm = weights.q_norm,
                        .k_norm = weights.k_norm,
                        .inv_freq = Tensor(inv_freq_.data(), DType::kF32, {config_.head_dim / 2}),
                        .positions = rows.positions,
                        .slots = rows.slots,
                        .rope_scale = rope_scale_,
                        .norm_eps = config_.norm_eps},
                       stream);
}

void Transformer::finish(int layer, Tensor hidden, Tensor attention, const LayerScratch& scratch,
                         const Stream& stream) const {
  const LayerWeights& weights = weights_.layers[static_cast<size_t>(layer)];
  const int64_t num_rows = hidden.dim(0);
  const Tensor heads = attention.reshape({num_rows, config_.num_q_heads * config_.head_dim});
  const Tensor normed = scratch.normed.rows(0, num_rows);
  const Tensor output = scratch.output.rows(0, num_rows);
  const Tensor gate_up = scratch.gate_up.rows(0, num_rows);
  const Tensor gated = scratch.gated.rows(0, num_rows);

  kernels::linear({.y = output, .x = heads, .weight = weights.out, .bias = {}}, stream);
  kernels::rms_norm({.y = normed,
                     .x = output,
                     .weight = weights.mlp_norm,
                     .residual = hidden,
                     .eps = config_.norm_eps},
                    stream);
  kernels::swiglu({.y = gated, .x = normed, .gate_up = weights.gate_up, .scratch = gate_up},
                  stream);
  kernels::linear({.y = output, .x = gated, .weight = weights.down, .bias = {}}, stream);
  // The addition alone: the next norm belongs to the next layer, which may run much later.
  kernels::rms_norm(
      {.y = {}, .x = output, .weight = {}, .residual = hidden, .eps = config_.norm_eps}, stream);
}

void Transformer::logits(Tensor logits, Tensor hidden, const LayerScratch& scratch,
                         const Stream& stream) const {
  const Tensor normed = scratch.normed.rows(0, hidden.dim(0));
  kernels::rms_norm({.y = normed,
                     .x = {},
                     .weight = weights_.final_norm,
                     .residual = hidden,
                     .eps = config_.norm_eps},
                    stream);
  kernels::linear({.y = logits, .x = normed, .weight = weights_.lm_head, .bias = {}}, stream);
}

}  // namespace pbserve::models
