// DecodePass: one token for every generating sequence: embedding, all layers, draw. Where the
// device records graphs, the pass is recorded at start-up for some batch sizes, and a step replays
// the next larger one: the rows too many read and write no page and draw into slots of their own.
// Engine thread only.
#pragma once

#include <map>
#include <span>
#include <vector>

#include "engine/sampler.h"
#include "engine/step.h"
#include "kernels/core/graph.h"

namespace pbserve::engine {

// Batch sizes with a graph, ascending: powers of two, from 16 on the halves between them (so that
// beyond 16 rows at most a third is padding), and num_slots.
std::vector<int64_t> decode_buckets(int64_t num_slots);

class DecodePass {
 public:
  struct Buffers {
    kernels::Tensor hidden;   // [num_slots, C] float32
    kernels::Tensor q;        // [num_slots, Hq, D]; attention writes its output over it
    kernels::Tensor scratch;  // [bytes] uint8

    static Buffers take(const models::ModelConfig& config, kernels::DType dtype, int64_t num_slots,
                        kernels::Device device, kernels::Workspace& workspace);
  };

  explicit DecodePass(const Buffers& buffers) : buffers_(buffers) {}

  // Runs every bucket once, for what first runs cost.
  void warm_up(const Sampler& sampler, UploadArena& arena, const ForwardContext& context) const;

  // Records a graph for every bucket. The arena and the sampler are those of every later step, or
  // share their device memory. kResourceExhausted: the device has no memory for the graphs.
  // REQUIRES: StepGraph::is_supported; warm_up before it.
  absl::Status record(const Sampler& sampler, UploadArena& arena, const ForwardContext& context);

  // Queues the pass for some rows. REQUIRES: at most num_slots rows; the arena is empty.
  void run(std::span<const DecodeRow> rows, const SequenceMap& sequences, const Sampler& sampler,
           UploadArena& arena, const ForwardContext& context) const;

 private:
  // What the operations read.
  struct Input {
    models::RowInput rows;
    kernels::Tensor sequence_slots;  // [B]
    kernels::Tensor context_lens;    // [B]
    kernels::Tensor block_tables;    // [B, pages_max]
    SampleInput sample;
  };

  Input put_padding(int64_t num_rows, UploadArena& arena, const ForwardContext& context) const;
  Input put(std::span<const DecodeRow> rows, const SequenceMap& sequences, int64_t num_rows,
            UploadArena& arena, const ForwardContext& context) const;
  void run_operations(const Input& input, const Sampler& sampler,
                      const ForwardContext& context) const;

  Buffers buffers_;
  std::map<int64_t, kernels::StepGraph> graphs_;  // by number of rows
};

}  // namespace pbserve::engine
