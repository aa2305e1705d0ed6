// PrefillLane: one prefill job and its state between slices: where it stands (layer, pass, row),
// the hidden states and q of its rows. It is advanced by items, each some rows of one pass of one
// layer and short enough that a decode step can go in between. Rows are independent within a pass,
// so how a job was cut into items never shows in its results. Engine thread only.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "engine/config.h"
#include "engine/kv_cache_pool.h"
#include "engine/pbs_layer.h"
#include "engine/sequence.h"
#include "engine/step.h"
#include "engine/upload_arena.h"
#include "kernels/core/workspace.h"
#include "kernels/ops/pbs.h"
#include "models/transformer.h"

namespace pbserve::engine {

// Shared by all lanes and by decode: everything runs on one stream, one after the other.
struct ForwardContext {
  const models::Transformer& transformer;
  const KvCachePool& pool;
  const kernels::Stream& stream;
  models::LayerScratch scratch;
  PbsOptions pbs;
  int64_t pages_max;  // of one sequence
};

class PrefillLane {
 public:
  struct Buffers {
    kernels::Tensor hidden;  // [rows_max, C] float32
    kernels::Tensor q;       // [rows_max, Hq, D]; attention writes its output over it
    kernels::PbsPlan plan;   // of the layer in progress
    PbsCounts counts;

    // For contexts of up to `context_len_max` tokens.
    static Buffers take(const models::ModelConfig& config, kernels::DType dtype, int64_t rows_max,
                        int64_t context_len_max, kernels::Device device,
                        kernels::Workspace& workspace);
  };

  PrefillLane(const Buffers& buffers, int num_layers, UploadArena arena);

  // Runs one layer's row-wise operations once for each number of rows that chooses algorithms of
  // its own (powers of two, ops/linear.h), up to an item's. Touches no page. REQUIRES: idle.
  void warm_up(const ForwardContext& context);

  bool idle() const { return chunks_.empty(); }
  bool done() const { return !idle() && layer_ == num_layers_; }
  double fraction() const;  // of the job, in [0, 1]
  const std::vector<PrefillChunk>& chunks() const { return chunks_; }

  // REQUIRES: idle.
  void load(const std::vector<PrefillChunk>& chunks, const SequenceMap& sequences,
            const ForwardContext& context);
  void clear() { chunks_.clear(); }

  PrefillPass next_pass() const { return pass_; }

  // Launches the next item: at most `rows` rows (a multiple of the block). The order pass is one
  // item, counted as `rows`. Returns the rows of the item. REQUIRES: not done.
  int64_t run_item(int64_t rows, const ForwardContext& context);

  // Hidden states [rows_max, C], and the chunks whose last row gives logits, with that row.
  kernels::Tensor hidden() const { return buffers_.hidden; }
  std::vector<std::pair<PrefillChunk, int32_t>> drawing_chunks() const;

  // Blocks of a dense causal pass over the rows the job attends, per chunk and layer; and which
  // layers run PBS, where `counts` says what was attended and covered.
  std::vector<ChunkReport> reports(const ForwardContext& context) const;
  std::vector<bool> pbs_layers(const ForwardContext& context) const;
  const PbsCounts& counts() const { return buffers_.counts; }

 private:
  void project(int64_t end, const ForwardContext& context);
  void order(const ForwardContext& context);
  void attend(int64_t end, const ForwardContext& context);
  void attend_dense(int64_t end, const ForwardContext& context);
  void begin_attend();
  PbsLayer pbs_layer(const ForwardContext& context) const;
  int64_t num_audited_rows(int layer, const ForwardContext& context) const;
  int64_t first_attended_row(int layer) const;
  bool layer_runs_pbs(int layer, const ForwardContext& context) const;
  kernels::Tensor q_rows(int64_t begin, int64_t end) const { return buffers_.q.rows(begin, end); }

  Buffers buffers_;
  UploadArena arena_;
  int num_layers_;

  std::vector<PrefillChunk> chunks_;
  int64_t num_rows_ = 0;
  kernels::Tensor positions_;     // [num_rows] int32
  kernels::Tensor kv_slots_;      // [num_rows] int64: in the pages of the pool
  kernels::Tensor own_slots_;     // [num_rows] int64: in the plan's own pages; PBS only
  kernels::Tensor block_tables_;  // [chunks, pages_max] int32
  int layer_ = 0;
  PrefillPass pass_ = PrefillPass::kProject;
  int64_t row_ = 0;
};

}  // namespace pbserve::engine
