// The decoder-only network as a sequence of operations. It holds no state but views of weights:
// hidden states, q and pages belong to the caller (engine/model_runner.h).
//
// A layer is cut where attention needs other rows: `project` turns hidden states into q and cached
// k, v; attention is the caller's choice (decode, dense prefill, PBS); `finish` takes its output
// through the rest of the layer. Both are row-wise, so a caller may run them over any rows in any
// order: that is what lets a long prefill stop between two slices.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/workspace.h"
#include "models/config.h"
#include "models/forward_input.h"
#include "models/rope_scaling.h"
#include "models/weights.h"

namespace pbserve::models {

// Temporary rows of one call. `take` both measures and hands out (kernels/core/workspace.h).
struct LayerScratch {
  kernels::Tensor normed;   // [rows, C]
  kernels::Tensor qkv;      // [rows, (Hq + 2 Hkv) D]
  kernels::Tensor output;   // [rows, C]
  kernels::Tensor gate_up;  // [rows, 2 F]
  kernels::Tensor gated;    // [rows, F]

  static LayerScratch take(const ModelConfig& config, kernels::DType dtype, int64_t rows_max,
                           kernels::Workspace& workspace);
};

class Transformer {
 public:
  static absl::StatusOr<Transformer> create(const ModelConfig& config, WeightStore weights,
                                            const kernels::Stream& stream);

  const ModelConfig& config() const { return config_; }
  kernels::DType dtype() const { return weights_.dtype(); }
  float attention_scale() const;  // 1 / sqrt(D)

  // hidden [T, C] float32 = embeddings of ids [T] (id -1: zeros); with an index [T], of
  // ids[index[t]].
  void embed(kernels::Tensor hidden, kernels::Tensor ids, kernels::Tensor index,
             const kernels::Stream& stream) const;

  // Norm, QKV, rotation; writes q [T, Hq, D] and the rows' K/V into this layer's pages.
  void project(int layer, const RowInput& rows, kernels::Tensor hidden, kernels::Tensor q,
               const KvPages& pages, const LayerScratch& scratch,
               const kernels::Stream& stream) const;

  // hidden [T, C] += out(attention [T, Hq, D]), then += mlp(norm(hidden)).
  void finish(int layer, kernels::Tensor hidden, kernels::Tensor attention,
              const LayerScratch& scratch, const kernels::Stream& stream) const;

  // logits [T, V] float32 of hidden rows [T, C].
  void logits(kernels::Tensor logits, kernels::Tensor hidden, const LayerScratch& scratch,
              const kernels::Stream& stream) const;

 private:
  Transformer(const ModelConfig& config, WeightStore weights, kernels::DeviceBuffer inv_freq,
              float rope_scale);

  ModelConfig config_;
  WeightStore weights_;
  kernels::DeviceBuffer inv_freq_;  // [D / 2] float32
  float rope_scale_;
};

}  // namespace pbserve::models
