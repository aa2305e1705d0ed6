// Loading is three passes over one list: lay all tensors out in one allocation, compare names and
// shapes with the source, then stream values through a scratch buffer into place.
#include "models/weights.h"

#include <algorithm>
#include <memory>

#include "kernels/core/workspace.h"
#include "models/parameter_names.h"
#include "models/weight_source.h"

namespace pbserve::models {

using kernels::DType;
using kernels::Event;
using kernels::LinearWeight;
using kernels::PinnedBuffer;
using kernels::Stream;
using kernels::Tensor;
using kernels::ThreadPool;
using kernels::Workspace;

namespace {

// Whether the output head is the embedding itself, and not a packed copy of its values.
bool head_is_embedding(const ModelConfig& config, kernels::Device device) {
  return config.tied_embeddings && kernels::packed_is_row_major(device);
}

// Every tensor of the store, from `workspace`; run once to measure and once to hand out.
void lay_out(const ModelConfig& config, DType dtype, kernels::Device device, Workspace& workspace,
             WeightStore& store) {
  const auto vector = [&](int64_t size) { return workspace.take(DType::kF32, {size}); };
  const auto matrix = [&](int64_t num_out, int64_t num_in) {
    const int64_t numel = kernels::packed_weight_numel(device, num_out, num_in);
    return LinearWeight{workspace.take(dtype, {numel}), num_out, num_in};
  };
  const int64_t hidden = config.hidden_size;
  const int64_t q_size = config.num_q_heads * config.head_dim;
  const int64_t qkv_size = q_size + 2 * config.num_kv_heads * config.head_dim;
  store.embedding = workspace.take(dtype, {config.vocab_size, hidden});
  store.final_norm = vector(hidden);
  store.lm_head = head_is_embedding(config, device)
                      ? LinearWeight{store.embedding.reshape({config.vocab_size * hidden}),
                                     config.vocab_size, hidden}
                      : matrix(config.vocab_size, hidden);
  store.layers.assign(static_cast<size_t>(config.num_layers), {});
  for (LayerWeights& layer : store.layers) {
    layer.attn_norm = vector(hidden);
    layer.qkv = matrix(qkv_size, hidden);
    if (config.qkv_bias) layer.qkv_bias = vector(qkv_size);
    if (config.qk_norm) layer.q_norm = vector(config.head_dim);
    if (config.qk_norm) layer.k_norm = vector(config.head_dim);
    layer.out = matrix(hidden, q_size);
    layer.mlp_norm = vector(hidden);
    layer.gate_up = matrix(2 * config.intermediate_size, hidden);
    layer.down = matrix(hidden, config.intermediate_size);
  }
}

// One parameter and its place: rows of a packed matrix, or of a plain tensor.
struct Placement {
  std::string name;
  std::vector<int64_t> shape;
  int64_t row_begin = 0;  // where the parameter's first row lands
  LinearWeight packed;    // num_out = 0 for a plain destination
  Tensor plain;
};

class PlacementList {
 public:
  void plain(std::string name, const Tensor& to) { plain_rows(std::move(name), to, 0, to.dim(0)); }

  void plain_rows(std::string name, const Tensor& to, int64_t row_begin, int64_t num_rows) {
    std::vector<int64_t> shape(to.shape.begin(), to.shape.begin() + to.rank);
    shape[0] = num_rows;
    items_.push_back({std::move(name), std::move(shape), row_begin, {}, to});
  }

  void packed(std::string name, const LinearWeight& to, int64_t row_begin, int64_t num_rows) {
    items_.push_back({std::move(name), {num_rows, to.num_in}, row_begin, to, {}});
  }

  std::vector<Placement> take() { return std::move(items_); }

 private:
  std::vector<Placement> items_;
};

void place_attention(const ModelConfig& config, int64_t index, const LayerWeights& layer,
                     PlacementList& list) {
  const int64_t q_size = config.num_q_heads * config.head_dim;
  const int64_t kv_size = config.num_kv_heads * config.head_dim;
  int64_t row = 0;
  for (const auto& [part, size] : {std::pair{"q", q_size}, {"k", kv_size}, {"v", kv_size}}) {
    const std::string name = layer_parameter(index, std::string("self_attn.") + part + "_proj.");
    list.packed(name + "weight", layer.qkv, row, size);
    if (config.qkv_bias) list.plain_rows(name + "bias", layer.qkv_bias, row, size);
    row += size;
  }
  if (config.qk_norm) {
    list.plain(layer_parameter(index, "self_attn.q_norm.weight"), layer.q_norm);
    list.plain(layer_parameter(index, "self_attn.k_norm.weight"), layer.k_norm);
  }
  list.packed(layer_parameter(index, "self_attn.o_proj.weight"), layer.out, 0, config.hidden_size);
}

std::vector<Placement> placements(const ModelConfig& config, kernels::Device device,
                                  const WeightStore& store) {
  PlacementList list;
  list.plain(std::string(kEmbeddingName), store.embedding);
  list.plain(std::string(kFinalNormName), store.final_norm);
  if (!head_is_embedding(config, device)) {
    const std::string_view lm_head = config.tied_embeddings ? kEmbeddingName : kLmHeadName;
    list.packed(std::string(lm_head), store.lm_head, 0, config.vocab_size);
  }
  const int64_t ffn = config.intermediate_size;
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const LayerWeights& layer = store.layers[static_cast<size_t>(i)];
    list.plain(layer_parameter(i, "input_layernorm.weight"), layer.attn_norm);
    place_attention(config, i, layer, list);
    list.plain(layer_parameter(i, "post_attention_layernorm.weight"), layer.mlp_norm);
    list.packed(layer_parameter(i, "mlp.gate_proj.weight"), layer.gate_up, 0, ffn);
    list.packed(layer_parameter(i, "mlp.up_proj.weight"), layer.gate_up, ffn, ffn);
    list.packed(layer_parameter(i, "mlp.down_proj.weight"), layer.down, 0, config.hidden_size);
  }
  return list.take();
}

// Streams parameters to the device through two pinned buffers: one fills while the other is copied.
class Loader {
 public:
  static absl::StatusOr<Loader> create(const WeightSource& source, const Stream& stream) {
    Loader loader(source, stream);
    for (int i = 0; i < 2; ++i) {
      ASSIGN_OR_RETURN(auto bytes, PinnedBuffer::create(stream.device(), kBufferBytes));
      loader.buffers_.push_back({std::move(bytes), Event(stream)});
    }
    return loader;
  }

  // Queues the parameter's copies; they read the buffers until the stream has been waited for.
  void load(const Placement& placement) {
    const bool is_packed = placement.packed.num_out != 0;
    const DType dtype = is_packed ? placement.packed.packed.dtype : placement.plain.dtype;
    const int64_t num_rows = placement.shape[0];
    const int64_t num_cols = placement.shape.size() == 2 ? placement.shape[1] : 1;
    const int64_t row_bytes = num_cols * static_cast<int64_t>(size_of(dtype));
    const int64_t step = kBufferBytes / row_bytes;
    check(step >= 1, "a row of weights exceeds the buffer");
    for (int64_t begin = 0; begin < num_rows; begin += step) {
      const int64_t count = std::min(step, num_rows - begin);
      const int64_t to = placement.row_begin + begin;
      Buffer& buffer = buffers_[static_cast<size_t>(num_copies_++ % 2)];
      if (num_copies_ > 2) buffer.copied.wait();
      const Tensor rows(buffer.bytes.data(), dtype, {count, num_cols});
      read_rows(placement.name, begin, rows);
      if (is_packed) {
        kernels::pack_weight({.weight = placement.packed, .rows = rows, .row_begin = to}, stream_);
      } else {
        kernels::copy_to_device(placement.plain.rows(to, to + count).data, rows.data,
                                static_cast<size_t>(count * row_bytes), stream_);
      }
      buffer.copied.record(stream_);
    }
  }

 private:
  static constexpr int64_t kBufferBytes = 16 << 20;  // hides the cost of a call, stays in the cache

  struct Buffer {
    PinnedBuffer bytes;
    Event copied;
  };

  Loader(const WeightSource& source, const Stream& stream)
      : source_(&source),
        stream_(stream),
        own_pool_(stream.is_cuda() ? new ThreadPool(0) : nullptr) {}

  // Splits the rows from `begin` on over the pool; a slice is large enough to hide the hand-out.
  void read_rows(const std::string& name, int64_t begin, const Tensor& rows) {
    constexpr int64_t kSlice = 1 << 16;  // elements
    const int64_t numel = rows.numel();
    ThreadPool& pool = own_pool_ != nullptr ? *own_pool_ : stream_.pool();
    pool.parallel_for(kernels::ceil_div(numel, kSlice), [&](int64_t slice) {
      const int64_t first = slice * kSlice;
      source_->read(
          name, begin * rows.dim(1) + first, std::min(kSlice, numel - first), rows.dtype,
          static_cast<std::byte*>(rows.data) + first * static_cast<int64_t>(size_of(rows.dtype)));
    });
  }

  const WeightSource* source_;
  const Stream& stream_;
  std::unique_ptr<ThreadPool> own_pool_;  // a GPU's stream has no threads
  std::vector<Buffer> buffers_;
  int64_t num_copies_ = 0;
};

}  // namespace

size_t WeightStore::measure(const ModelConfig& config, DType dtype, kernels::Device device) {
  WeightStore store;
  Workspace workspace;
  lay_out(config, dtype, device, workspace, store);
  return workspace.used_bytes();
}

absl::StatusOr<WeightStore> WeightStore::fill(const ModelConfig& config, DType dtype,
                                              WeightSource& source, const Stream& stream) {
  const kernels::Device device = stream.device();
  WeightStore store;
  store.dtype_ = dtype;
  Workspace measured;
  lay_out(config, dtype, device, measured, store);
  for (const Placement& placement : placements(config, device, store)) {
    RETURN_IF_ERROR(source.require(placement.name, placement.shape));
  }
  RETURN_IF_ERROR(source.refuse_surplus());

  ASSIGN_OR_RETURN(store.buffer_, kernels::DeviceBuffer::create(device, measured.used_bytes()));
  Workspace workspace(store.buffer_.data(), store.buffer_.size());
  lay_out(config, dtype, device, workspace, store);
  ASSIGN_OR_RETURN(Loader loader, Loader::create(source, stream));
  for (const Placement& placement : placements(config, device, store)) loader.load(placement);
  stream.synchronize();
  return store;
}

absl::StatusOr<WeightStore> WeightStore::load(const std::string& folder, const ModelConfig& config,
                                              DType dtype, const Stream& stream) {
  ASSIGN_OR_RETURN(Checkpoint checkpoint, Checkpoint::open(folder));
  CheckpointSource source(std::move(checkpoint), {.tied_embeddings = config.tied_embeddings});
  return fill(config, dtype, source, stream);
}

absl::StatusOr<WeightStore> WeightStore::dummy(const ModelConfig& config, DType dtype,
                                               uint64_t seed, const Stream& stream) {
  DummySource source(seed);
  return fill(config, dtype, source, stream);
}

}  // namespace pbserve::models
