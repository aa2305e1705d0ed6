#include "tests/bench/partition_rig.h"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <random>
#include <span>
#include <utility>

#include "kernels/core/bits.h"
#include "kernels/core/check.h"
#include "kernels/ops/sample.h"
#include "models/config.h"
#include "models/weight_source.h"

namespace pbserve::bench {

using engine::DecodeRow;
using engine::ForwardContext;
using engine::Sequence;
using engine::SequenceId;
using engine::UploadArena;
using kernels::ceil_div;
using kernels::DType;
using kernels::kPageSize;
using kernels::Stream;
using kernels::Tensor;
using kernels::Workspace;

namespace {

constexpr SequenceId kLongPrompt = 1'000'000;  // the others count from 0

constexpr const char kLlama8b[] = R"({
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
  "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
  "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072,
  "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "tie_word_embeddings": false,
  "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                   "original_max_position_embeddings": 8192, "rope_type": "llama3"}})";

template <class T>
T value_of(absl::StatusOr<T> value) {
  check(value.ok(), value.status().ToString());
  return *std::move(value);
}

models::ModelConfig model_config(const RigShape& shape) {
  const std::string layers = R"({"num_hidden_layers": )" + std::to_string(shape.num_layers) + "}";
  return value_of(models::parse_model_config(kLlama8b, layers, "Llama-3.1-8B"));
}

engine::KvCacheShape cache_shape(const models::ModelConfig& config) {
  return {.num_layers = config.num_layers,
          .num_kv_heads = config.num_kv_heads,
          .head_dim = config.head_dim,
          .dtype = DType::kBF16};
}

// Tokens of the long prompt: the job is not its last, as most jobs are not.
int64_t prompt_len(const RigShape& shape) { return shape.position + shape.job_rows + 1024; }

// Of decoding sequence `row`, for the longest of the loads it takes part in.
int64_t row_pages(const std::vector<DecodeLoad>& loads, int row) {
  int64_t num_pages = 0;
  for (const DecodeLoad& load : loads) {
    if (row < load.num_rows) {
      num_pages = std::max(num_pages, ceil_div<int64_t>(load.context, kPageSize));
    }
  }
  return num_pages;
}

int rows_max(const std::vector<DecodeLoad>& loads) {
  int most = 0;
  for (const DecodeLoad& load : loads) most = std::max(most, load.num_rows);
  return most;
}

int64_t num_pages(const RigShape& shape, const std::vector<DecodeLoad>& loads) {
  int64_t pages = ceil_div<int64_t>(prompt_len(shape), kPageSize);
  for (int row = 0; row < rows_max(loads); ++row) pages += row_pages(loads, row);
  return pages;
}

// Weights from a table of normal values, norms of 1: a model's worth in seconds.
class TableSource : public models::WeightSource {
 public:
  TableSource() {
    std::mt19937 random(2);
    std::normal_distribution<float> normal(0, 0.02f);
    for (BF16& value : table_) value = kernels::from_f32<BF16>(normal(random));
  }

  absl::Status require(const std::string&, std::span<const int64_t>) override {
    return absl::OkStatus();
  }
  absl::Status refuse_surplus() const override { return absl::OkStatus(); }

  void read(const std::string& name, int64_t begin, int64_t count, DType dtype,
            void* out) const override {
    if (name.ends_with("norm.weight")) {
      check(dtype == DType::kF32, "norms are float32");
      std::fill_n(static_cast<float*>(out), count, 1.0f);
      return;
    }
    check(dtype == DType::kBF16, "matrices are bfloat16");
    auto* to = static_cast<BF16*>(out);
    const auto size = static_cast<int64_t>(table_.size());
    const auto start = static_cast<int64_t>(std::hash<std::string>{}(name) % table_.size());
    for (int64_t i = 0; i < count;) {
      const int64_t from = (start + begin + i) % size;
      const int64_t num_values = std::min(size - from, count - i);
      std::copy_n(table_.data() + from, num_values, to + i);
      i += num_values;
    }
  }

 private:
  using BF16 = kernels::BF16;
  std::vector<BF16> table_ = std::vector<BF16>((1 << 20) + 7);  // no multiple of a row
};

// Normal values, from pinned memory, which copies several times as fast.
class Noise {
 public:
  explicit Noise(const Stream& stream)
      : stream_(stream),
        buffer_(value_of(kernels::PinnedBuffer::create(stream.device(), kSize * sizeof(BF16)))) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    auto* values = reinterpret_cast<BF16*>(buffer_.data());
    for (int64_t i = 0; i < kSize; ++i) values[i] = kernels::from_f32<BF16>(normal(random));
  }

  void fill(const Tensor& tensor) {
    const auto* values = reinterpret_cast<const BF16*>(buffer_.data());
    for (int64_t to = 0; to < tensor.numel();) {
      const int64_t count = std::min(kSize - next_, tensor.numel() - to);
      kernels::copy_to_device(tensor.as<BF16>() + to, values + next_,
                              static_cast<size_t>(count) * sizeof(BF16), stream_);
      to += count;
      next_ = (next_ + count) % kSize;
    }
  }

 private:
  using BF16 = kernels::BF16;
  static constexpr int64_t kSize = (1 << 23) + 1;  // odd: repeats start at other elements of a head

  const Stream& stream_;
  kernels::PinnedBuffer buffer_;
  int64_t next_ = 0;
};

}  // namespace

std::string DecodeLoad::name() const {
  return std::to_string(num_rows) + "x" + std::to_string(context);
}

std::vector<DecodeLoad> loads_that_fit(const RigShape& shape, kernels::Device device) {
  constexpr int64_t kScratchBytes = int64_t{6} << 30;  // of both sides, with room to spare
  const models::ModelConfig config = model_config(shape);
  const auto weight_bytes =
      static_cast<int64_t>(models::WeightStore::measure(config, DType::kBF16, device));
  const int64_t free_bytes = value_of(kernels::device_info(device)).free_bytes;
  std::vector<DecodeLoad> fitting;
  for (const DecodeLoad& load : shape.loads) {
    std::vector<DecodeLoad> with = fitting;
    with.push_back(load);
    const int64_t page_bytes = cache_shape(config).page_bytes();
    if (weight_bytes + kScratchBytes + num_pages(shape, with) * page_bytes <= free_bytes) {
      fitting = std::move(with);
    } else {
      std::fprintf(stderr, "%s: left out, its pages do not fit\n", load.name().c_str());
    }
  }
  return fitting;
}

Rig::Rig(const RigShape& shape, const Stream& stream)
    : shape_(shape),
      num_slots_(rows_max(shape.loads)),
      pages_max_(ceil_div<int64_t>(prompt_len(shape), kPageSize)) {
  const models::ModelConfig config = model_config(shape);
  TableSource source;
  auto weights = value_of(models::WeightStore::fill(config, DType::kBF16, source, stream));
  model_ = std::make_unique<models::Transformer>(
      value_of(models::Transformer::create(config, std::move(weights), stream)));
  pool_ = value_of(engine::KvCachePool::create(stream.device(), cache_shape(config),
                                               num_pages(shape, shape.loads)));
  Workspace measure;
  take(stream.device(), measure);
  memory_ = value_of(kernels::DeviceBuffer::create(stream.device(), measure.used_bytes()));
  Workspace workspace(memory_.data(), memory_.size());
  buffers_ = take(stream.device(), workspace);
  add_sequences(stream);
}

Rig::Buffers Rig::take(kernels::Device device, Workspace& workspace) const {
  const models::ModelConfig& config = model_->config();
  const int64_t rows = shape_.job_rows;
  constexpr int64_t kArraysBytes = 64 * int64_t{Workspace::kAlignment};  // what alignment adds
  const int64_t step_row_bytes = 4 * pages_max_ + 2 * (4 * kernels::kMaxBannedIds + 8 * 16);
  return {.prefill_scratch = models::LayerScratch::take(config, DType::kBF16, rows, workspace),
          .decode_scratch = models::LayerScratch::take(config, DType::kBF16, num_slots_, workspace),
          .lane = engine::PrefillLane::Buffers::take(config, DType::kBF16, rows,
                                                     pages_max_ * kPageSize, device, workspace),
          .pass = engine::DecodePass::Buffers::take(config, DType::kBF16, num_slots_, device,
                                                    workspace),
          .sampler = engine::Sampler::take(config, num_slots_, workspace),
          .lane_arrays = workspace.take(DType::kU8, {rows * 24 + 4 * pages_max_ + kArraysBytes}),
          .step_arrays = workspace.take(DType::kU8, {num_slots_ * step_row_bytes + kArraysBytes})};
}

void Rig::add_sequences(const Stream& stream) {
  Noise noise(stream);
  for (int64_t layer = 0; layer < model_->config().num_layers; ++layer) {
    const models::KvPages pages = pool_->layer(layer);
    for (const Tensor& values : {pages.k, pages.v, pages.k_mean, pages.k_var}) noise.fill(values);
  }
  const auto add = [&](SequenceId id, int64_t num_tokens, int64_t pages, int slot) {
    engine::SequenceSpec spec;
    spec.id = id;
    spec.num_tokens_max = num_tokens + 1;
    for (int64_t i = 0; i < num_tokens; ++i) {
      spec.prompt.push_back(static_cast<int32_t>(i * 7919 % model_->config().vocab_size));
    }
    auto sequence = std::make_unique<Sequence>(std::move(spec));
    sequence->slot = slot;
    check(pool_->allocate(sequence->blocks, static_cast<int32_t>(pages)), "too few pages");
    sequences_.emplace(id, std::move(sequence));
  };
  add(kLongPrompt, prompt_len(shape_), pages_max_, -1);
  for (int row = 0; row < num_slots_; ++row) {
    add(static_cast<SequenceId>(row), 1, row_pages(shape_.loads, row), row);
  }
  const Tensor tokens = buffers_.sampler.slot_tokens();
  kernels::fill_zero(tokens.data, static_cast<size_t>(tokens.numel()) * sizeof(int32_t), stream);
  stream.synchronize();
}

engine::PrefillChunk Rig::chunk(bool pbs) const {
  return {.id = kLongPrompt,
          .begin = shape_.position,
          .end = shape_.position + shape_.job_rows,
          .pbs = pbs,
          .pbs_threshold = kernels::default_threshold(kernels::PbsScorer::kMass),
          .prompt_len = prompt_len(shape_)};
}

std::vector<DecodeRow> Rig::rows(const DecodeLoad& load) {
  std::vector<DecodeRow> rows;
  for (int row = 0; row < load.num_rows; ++row) {
    rows.push_back({.id = static_cast<SequenceId>(row), .position = load.context - 1});
  }
  return rows;
}

ForwardContext Rig::context(const models::LayerScratch& scratch, const Stream& stream) const {
  engine::PbsOptions pbs;
  pbs.force_density = shape_.density;
  pbs.params = engine::pbs_params(pbs);
  return {.transformer = *model_,
          .pool = *pool_,
          .stream = stream,
          .scratch = scratch,
          .pbs = pbs,
          .pages_max = pages_max_};
}

PrefillSide::PrefillSide(const Rig& rig, const Stream& stream)
    : rig_(rig),
      context_(rig.context(rig.buffers_.prefill_scratch, stream)),
      lane_(rig.buffers_.lane, static_cast<int>(rig.model_->config().num_layers),
            value_of(UploadArena::create(rig.buffers_.lane_arrays, stream))) {
  lane_.warm_up(context_);
  stream.synchronize();
}

void PrefillSide::load(bool pbs) {
  lane_.clear();
  lane_.load({rig_.chunk(pbs)}, rig_.sequences_, context_);
}

DecodeSide::DecodeSide(const Rig& rig, const Stream& stream)
    : rig_(rig),
      context_(rig.context(rig.buffers_.decode_scratch, stream)),
      pass_(rig.buffers_.pass),
      tokens_(value_of(kernels::PinnedBuffer::create(
          stream.device(), static_cast<size_t>(rig.num_slots_) * sizeof(int32_t)))) {
  for (int i = 0; i < 2; ++i) {
    arenas_.push_back(value_of(UploadArena::create(rig.buffers_.step_arrays, stream)));
  }
  pass_.warm_up(rig.buffers_.sampler, arenas_.front(), context_);
  if (!kernels::StepGraph::is_supported(stream.device())) return;
  const absl::Status recorded = pass_.record(rig.buffers_.sampler, arenas_.front(), context_);
  check(recorded.ok(), recorded.ToString());
}

void DecodeSide::step(const std::vector<DecodeRow>& rows) {
  UploadArena& arena = arenas_[static_cast<size_t>(num_steps_++ % 2)];
  arena.reset();
  pass_.run(rows, rig_.sequences_, rig_.buffers_.sampler, arena, context_);
  kernels::copy_to_host(tokens_.data(), rig_.buffers_.sampler.slot_tokens().data, tokens_.size(),
                        context_.stream);
}

}  // namespace pbserve::bench
