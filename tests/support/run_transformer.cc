#include "tests/support/run_transformer.h"

#include <algorithm>

#include "kernels/core/bits.h"
#include "kernels/ops/attention.h"

namespace pbserve::test {

using kernels::DType;
using kernels::kPageSize;
using kernels::Stream;
using kernels::Tensor;
using models::ModelConfig;
using models::Transformer;

namespace {

// Memory full of ones reads as NaN in every floating-point type.
void poison(const kernels::DeviceBuffer& buffer, const Stream& stream) {
  constexpr size_t kChunkBytes = 16 << 20;
  const std::vector<std::byte> ones(std::min(buffer.size(), kChunkBytes), std::byte{0xff});
  for (size_t at = 0; at < buffer.size(); at += ones.size()) {
    kernels::copy_to_device(buffer.data() + at, ones.data(),
                            std::min(ones.size(), buffer.size() - at), stream);
  }
  stream.synchronize();
}

// Everything a run needs besides the model. Pages of all layers hold NaN until they are written.
class Runner {
 public:
  Runner(const Transformer& model, int64_t num_tokens, int64_t rows_max, const Stream& stream)
      : model_(model), config_(model.config()), stream_(stream) {
    const int64_t num_pages = kernels::ceil_div<int64_t>(num_tokens, kPageSize);
    // The sequence's pages in falling order, with an unused page before and after them.
    host_block_table_.resize(static_cast<size_t>(num_pages));
    for (int64_t i = 0; i < num_pages; ++i) {
      host_block_table_[static_cast<size_t>(i)] = static_cast<int32_t>(num_pages - i);
    }
    kernels::Workspace measure;
    lay_out(measure, num_pages, rows_max);
    auto buffer = kernels::DeviceBuffer::create(stream.device(), measure.used_bytes());
    check(buffer.ok(), buffer.status().ToString());
    buffer_ = *std::move(buffer);
    poison(buffer_, stream);
    kernels::Workspace workspace(buffer_.data(), buffer_.size());
    lay_out(workspace, num_pages, rows_max);
    upload(block_table_, std::span<const int32_t>(host_block_table_));
  }

  // Positions [begin, begin + ids.size()) through all layers; waits for their logits and returns
  // them, valid until the next call.
  std::span<const float> run(std::span<const int32_t> ids, int64_t begin, bool decode) {
    const auto num_rows = static_cast<int64_t>(ids.size());
    upload_rows(ids, begin);
    const models::RowInput rows{positions_.rows(0, num_rows), slots_.rows(0, num_rows)};
    const Tensor hidden = hidden_.rows(0, num_rows);
    const Tensor q = q_.rows(0, num_rows);
    const Tensor attended = attended_.rows(0, num_rows);
    model_.embed(hidden, ids_.rows(0, num_rows), {}, stream_);
    for (int layer = 0; layer < config_.num_layers; ++layer) {
      const models::KvPages& pages = pages_[static_cast<size_t>(layer)];
      model_.project(layer, rows, hidden, q, pages, scratch_, stream_);
      decode ? attend_decode(pages, q, attended) : attend(pages, q, attended, begin);
      model_.finish(layer, hidden, attended, scratch_, stream_);
    }
    const Tensor logits = logits_.rows(0, num_rows);
    model_.logits(logits, hidden, scratch_, stream_);
    host_logits_.resize(static_cast<size_t>(logits.numel()));
    kernels::copy_to_host(host_logits_.data(), logits.data, host_logits_.size() * sizeof(float),
                          stream_);
    stream_.synchronize();
    return host_logits_;
  }

 private:
  void lay_out(kernels::Workspace& workspace, int64_t num_pages, int64_t rows_max) {
    const int64_t head_dim = config_.head_dim;
    const DType dtype = model_.dtype();
    scratch_ = models::LayerScratch::take(config_, dtype, rows_max, workspace);
    hidden_ = workspace.take(DType::kF32, {rows_max, config_.hidden_size});
    q_ = workspace.take(dtype, {rows_max, config_.num_q_heads, head_dim});
    attended_ = workspace.take(dtype, {rows_max, config_.num_q_heads, head_dim});
    ids_ = workspace.take(DType::kI32, {rows_max});
    positions_ = workspace.take(DType::kI32, {rows_max});
    slots_ = workspace.take(DType::kI64, {rows_max});
    block_table_ = workspace.take(DType::kI32, {1, num_pages});
    context_len_ = workspace.take(DType::kI32, {1});
    logits_ = workspace.take(DType::kF32, {rows_max, config_.vocab_size});
    const int64_t decode_bytes = kernels::decode_scratch_bytes(
        stream_.device(),
        {.num_rows_max = 1, .num_q_heads = config_.num_q_heads, .head_dim = head_dim});
    decode_scratch_ = workspace.take(DType::kU8, {decode_bytes});
    pages_.resize(static_cast<size_t>(config_.num_layers));
    for (models::KvPages& pages : pages_) {
      pages.k = workspace.take(dtype, {num_pages + 2, config_.num_kv_heads, kPageSize, head_dim});
      pages.v = workspace.take(dtype, {num_pages + 2, config_.num_kv_heads, kPageSize, head_dim});
    }
  }

  // `values` stay as they are until the stream is waited for.
  template <class T>
  void upload(Tensor to, std::span<const T> values) {
    check(static_cast<int64_t>(values.size()) <= to.numel(), "more values than the tensor holds");
    kernels::copy_to_device(to.as<T>(), values.data(), values.size_bytes(), stream_);
  }

  void upload_rows(std::span<const int32_t> ids, int64_t begin) {
    host_positions_.clear();
    host_slots_.clear();
    for (size_t i = 0; i < ids.size(); ++i) {
      const int64_t position = begin + static_cast<int64_t>(i);
      const int64_t page = host_block_table_[static_cast<size_t>(position / kPageSize)];
      host_positions_.push_back(static_cast<int32_t>(position));
      host_slots_.push_back(page * kPageSize + position % kPageSize);
    }
    host_context_len_ = host_positions_.back() + 1;
    upload(ids_, ids);
    upload(positions_, std::span<const int32_t>(host_positions_));
    upload(slots_, std::span<const int64_t>(host_slots_));
    upload(context_len_, std::span<const int32_t>(&host_context_len_, 1));
  }

  void attend(const models::KvPages& pages, Tensor q, Tensor out, int64_t begin) {
    const kernels::PrefillSegment segment{.row_begin = 0,
                                          .num_rows = static_cast<int32_t>(q.dim(0)),
                                          .position = static_cast<int32_t>(begin),
                                          .sequence = 0};
    kernels::prefill_attention({.out = out,
                                .q = q,
                                .k_pages = pages.k,
                                .v_pages = pages.v,
                                .block_tables = block_table_,
                                .segments = {&segment, 1},
                                .scale = model_.attention_scale()},
                               stream_);
  }

  void attend_decode(const models::KvPages& pages, Tensor q, Tensor out) {
    check_eq(q.dim(0), int64_t{1}, "decode takes one row of a sequence");
    kernels::decode_attention({.out = out,
                               .q = q,
                               .k_pages = pages.k,
                               .v_pages = pages.v,
                               .block_tables = block_table_,
                               .context_lens = context_len_,
                               .scratch = decode_scratch_,
                               .scale = model_.attention_scale()},
                              stream_);
  }

  const Transformer& model_;
  const ModelConfig& config_;
  const Stream& stream_;
  kernels::DeviceBuffer buffer_;
  models::LayerScratch scratch_;
  std::vector<models::KvPages> pages_;
  Tensor hidden_, q_, attended_, ids_, positions_, slots_, decode_scratch_;
  Tensor block_table_;  // [1, num_pages]
  Tensor context_len_;  // [1]
  Tensor logits_;       // [rows_max, V]
  // What uploads read from and logits are read into.
  std::vector<int32_t> host_block_table_;
  std::vector<int32_t> host_positions_;
  std::vector<int64_t> host_slots_;
  int32_t host_context_len_ = 0;
  std::vector<float> host_logits_;
};

}  // namespace

void visit_logits(const Transformer& model, std::span<const int32_t> ids, RunOptions options,
                  const Stream& stream, const LogitsSink& sink) {
  const auto num_tokens = static_cast<int64_t>(ids.size());
  const int64_t slice_len = options.slice_len == 0 ? num_tokens : options.slice_len;
  const int64_t decode_from = options.decode_from < 0 ? num_tokens : options.decode_from;
  Runner runner(model, num_tokens, std::min(slice_len, num_tokens), stream);
  for (int64_t begin = 0; begin < num_tokens;) {
    const bool decode = begin >= decode_from;
    const int64_t end = decode ? begin + 1 : std::min({begin + slice_len, decode_from, num_tokens});
    sink(begin,
         runner.run(ids.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
                    begin, decode));
    begin = end;
  }
}

std::vector<float> run_transformer(const Transformer& model, std::span<const int32_t> ids,
                                   RunOptions options, const Stream& stream) {
  std::vector<float> all;
  all.reserve(ids.size() * static_cast<size_t>(model.config().vocab_size));
  visit_logits(model, ids, options, stream, [&](int64_t, std::span<const float> logits) {
    all.insert(all.end(), logits.begin(), logits.end());
  });
  return all;
}

}  // namespace pbserve::test
