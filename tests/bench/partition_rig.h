// What bench_partition runs: a model with random weights, a prefill job far into a long prompt and
// sequences that decode, by the engine's own parts. Prefill and decode have their scratch apart, so
// that they may run at once.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/decode_pass.h"
#include "engine/kv_cache_pool.h"
#include "engine/prefill_lane.h"
#include "engine/sampler.h"
#include "models/transformer.h"

namespace pbserve::bench {

// Sequences of one length that decode together.
struct DecodeLoad {
  int num_rows;
  int64_t context;  // tokens of each

  std::string name() const;  // "16x4000"
};

struct RigShape {
  int64_t position = 97 * 1024;  // of the job's first row
  int64_t job_rows = 8192;
  float density = 0.22f;  // of a PBS job
  int num_layers = 32;    // of the model
  std::vector<DecodeLoad> loads;
};

// Leaves out, with a line on stderr, the loads that do not fit the device's free memory.
std::vector<DecodeLoad> loads_that_fit(const RigShape& shape, kernels::Device device);

class Rig {
 public:
  // Takes weights, pages (noise) and the memory of one prefill and one decode side.
  Rig(const RigShape& shape, const kernels::Stream& stream);

  engine::PrefillChunk chunk(bool pbs) const;
  static std::vector<engine::DecodeRow> rows(const DecodeLoad& load);

 private:
  friend class PrefillSide;
  friend class DecodeSide;
  // Of one side; nothing of it is shared with the other.
  struct Buffers {
    models::LayerScratch prefill_scratch, decode_scratch;
    engine::PrefillLane::Buffers lane;
    engine::DecodePass::Buffers pass;
    engine::Sampler sampler;
    kernels::Tensor lane_arrays, step_arrays;  // [bytes] uint8: of arenas
  };
  Buffers take(kernels::Device device, kernels::Workspace& workspace) const;
  void add_sequences(const kernels::Stream& stream);
  engine::ForwardContext context(const models::LayerScratch& scratch,
                                 const kernels::Stream& stream) const;

  RigShape shape_;
  int64_t num_slots_ = 1;
  int64_t pages_max_ = 1;
  std::unique_ptr<models::Transformer> model_;
  std::unique_ptr<engine::KvCachePool> pool_;
  engine::SequenceMap sequences_;
  kernels::DeviceBuffer memory_;
  Buffers buffers_;
};

// Prefill on one stream. One side of a rig at a time.
class PrefillSide {
 public:
  PrefillSide(const Rig& rig, const kernels::Stream& stream);  // warms up

  const kernels::Stream& stream() const { return context_.stream; }
  void load(bool pbs);
  bool done() const { return lane_.done(); }
  engine::PrefillPass next_pass() const { return lane_.next_pass(); }
  int64_t run_item(int64_t rows) { return lane_.run_item(rows, context_); }
  int64_t job_rows() const { return rig_.shape_.job_rows; }

 private:
  const Rig& rig_;
  engine::ForwardContext context_;
  engine::PrefillLane lane_;
};

// Decode on one stream, by graphs. One side of a rig at a time.
class DecodeSide {
 public:
  DecodeSide(const Rig& rig, const kernels::Stream& stream);  // warms up and records

  const kernels::Stream& stream() const { return context_.stream; }
  // Queues a step and the copy of its tokens. REQUIRES: at most two are in flight.
  void step(const std::vector<engine::DecodeRow>& rows);

 private:
  const Rig& rig_;
  engine::ForwardContext context_;
  engine::DecodePass pass_;
  std::vector<engine::UploadArena> arenas_;  // two, in turn
  kernels::PinnedBuffer tokens_;
  int64_t num_steps_ = 0;
};

}  // namespace pbserve::bench
