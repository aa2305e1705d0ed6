#include "tests/support/run_transformer.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

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

// Everything a run needs besides the model. Pages of all layers hold NaN until they are written.
class Runner {
 public:
  Runner(const Transformer& model, int64_t num_tokens, int64_t rows_max, const Stream& stream)
      : model_(model), config_(model.config()), stream_(stream) {
    const int64_t num_pages = kernels::ceil_div<int64_t>(num_tokens, kPageSize);
    // The sequence's pages in falling order, with an unused page before and after them.
    block_table_.resize(static_cast<size_t>(num_pages));
    for (int64_t i = 0; i < num_pages; ++i) {
      block_table_[static_cast<size_t>(i)] = static_cast<int32_t>(num_pages - i);
    }
    kernels::Workspace measure;
    lay_out(measure, num_pages + 2, rows_max);
    auto buffer = kernels::DeviceBuffer::create(stream.device(), measure.used_bytes());
    check(buffer.ok(), buffer.status().ToString());
    buffer_ = *std::move(buffer);
    std::memset(buffer_.data(), 0xff, buffer_.size());
    kernels::Workspace workspace(buffer_.data(), buffer_.size());
    lay_out(workspace, num_pages + 2, rows_max);
  }

  // Positions [begin, begin + ids.size()) through all layers; writes their logits.
  void run(std::span<const int32_t> ids, int64_t begin, bool decode, float* logits) {
    const auto num_rows = static_cast<int64_t>(ids.size());
    fill_rows(ids, begin);
    const models::RowInput rows{positions_.rows(0, num_rows), slots_.rows(0, num_rows)};
    const Tensor hidden = hidden_.rows(0, num_rows);
    const Tensor q = q_.rows(0, num_rows);
    const Tensor attended = attended_.rows(0, num_rows);
    model_.embed(hidden, ids_.rows(0, num_rows), {}, stream_);
    for (int layer = 0; layer < config_.num_layers; ++layer) {
      const models::KvPages& pages = pages_[static_cast<size_t>(layer)];
      model_.project(layer, rows, hidden, q, pages, scratch_, stream_);
      decode ? attend_decode(pages, q, attended, begin) : attend(pages, q, attended, begin);
      model_.finish(layer, hidden, attended, scratch_, stream_);
    }
    model_.logits(Tensor(logits, DType::kF32, {num_rows, config_.vocab_size}), hidden, scratch_,
                  stream_);
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
    const int64_t decode_bytes = kernels::decode_scratch_bytes(
        stream_.device(),
        {.num_rows_max = 1, .num_q_heads = config_.num_q_heads, .head_dim = head_dim});
    decode_scratch_ = workspace.take(DType::kU8, {decode_bytes});
    pages_.resize(static_cast<size_t>(config_.num_layers));
    for (models::KvPages& pages : pages_) {
      pages.k = workspace.take(dtype, {num_pages, config_.num_kv_heads, kPageSize, head_dim});
      pages.v = workspace.take(dtype, {num_pages, config_.num_kv_heads, kPageSize, head_dim});
    }
  }

  void fill_rows(std::span<const int32_t> ids, int64_t begin) {
    for (size_t i = 0; i < ids.size(); ++i) {
      const int64_t position = begin + static_cast<int64_t>(i);
      const int64_t page = block_table_[static_cast<size_t>(position / kPageSize)];
      ids_.as<int32_t>()[i] = ids[i];
      positions_.as<int32_t>()[i] = static_cast<int32_t>(position);
      slots_.as<int64_t>()[i] = page * kPageSize + position % kPageSize;
    }
  }

  Tensor block_tables() {
    return Tensor(block_table_.data(), DType::kI32, {1, static_cast<int64_t>(block_table_.size())});
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
                                .block_tables = block_tables(),
                                .segments = {&segment, 1},
                                .scale = model_.attention_scale()},
                               stream_);
  }

  void attend_decode(const models::KvPages& pages, Tensor q, Tensor out, int64_t begin) {
    check_eq(q.dim(0), int64_t{1}, "decode takes one row of a sequence");
    auto context_len = static_cast<int32_t>(begin + 1);
    kernels::decode_attention({.out = out,
                               .q = q,
                               .k_pages = pages.k,
                               .v_pages = pages.v,
                               .block_tables = block_tables(),
                               .context_lens = Tensor(&context_len, DType::kI32, {1}),
                               .scratch = decode_scratch_,
                               .scale = model_.attention_scale()},
                              stream_);
  }

  const Transformer& model_;
  const ModelConfig& config_;
  const Stream& stream_;
  kernels::DeviceBuffer buffer_;
  std::vector<int32_t> block_table_;
  models::LayerScratch scratch_;
  std::vector<models::KvPages> pages_;
  Tensor hidden_, q_, attended_, ids_, positions_, slots_, decode_scratch_;
};

}  // namespace

std::vector<float> run_transformer(const Transformer& model, std::span<const int32_t> ids,
                                   RunOptions options, const Stream& stream) {
  const auto num_tokens = static_cast<int64_t>(ids.size());
  const int64_t slice_len = options.slice_len == 0 ? num_tokens : options.slice_len;
  const int64_t decode_from = options.decode_from < 0 ? num_tokens : options.decode_from;
  const int64_t vocab_size = model.config().vocab_size;
  std::vector<float> logits(static_cast<size_t>(num_tokens * vocab_size),
                            std::numeric_limits<float>::quiet_NaN());
  Runner runner(model, num_tokens, slice_len, stream);
  for (int64_t begin = 0; begin < num_tokens;) {
    const bool decode = begin >= decode_from;
    const int64_t end = decode ? begin + 1 : std::min(begin + slice_len, decode_from);
    runner.run(ids.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)), begin,
               decode, logits.data() + begin * vocab_size);
    begin = end;
  }
  return logits;
}

}  // namespace pbserve::test
