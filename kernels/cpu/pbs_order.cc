// The order of the keys inside each segment: most attended by the last queries of the span first.
// One item is one span and one key head; what it computes follows from the span alone.

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>

#include "kernels/core/bits.h"
#include "kernels/cpu/aligned_floats.h"
#include "kernels/cpu/page_moments.h"
#include "kernels/cpu/paged_keys.h"
#include "kernels/cpu/query_rows.h"
#include "kernels/cpu/softmax_row.h"
#include "kernels/cpu/tile.h"
#include "kernels/cpu/transpose.h"
#include "kernels/ops/pbs.h"

namespace pbserve::kernels::cpu {
namespace {

constexpr int kSegmentMax = 256;
constexpr int64_t kRowChunk =
    24;  // proxies whose logits are alive at once: 96 KB at spans of 1,024

using Places = std::array<uint8_t, kSegmentMax>;  // place p holds the key at segment base + [p]

struct Scratch {
  AlignedFloats proxies;  // [num_proxies, packed_stride(D)]
  AlignedFloats keys;     // [segments of the span, D, S]: keys are columns
  AlignedFloats logits;   // [kRowChunk, keys of the span]
  AlignedFloats scores;   // [keys of the span]
};

Scratch& scratch_of_this_thread() {
  thread_local Scratch scratch;
  return scratch;
}

template <class T>
class SpanOrder {
 public:
  SpanOrder(const PbsInput& input, PbsSpan span, int64_t kv_head)
      : in_(input),
        span_(span),
        kv_head_(kv_head),
        group_(input.q.dim(1) / input.pages.k.dim(1)),
        dim_(input.q.dim(2)),
        segment_(input.params.segment),
        num_segments_(span.end / segment_ - span.begin / segment_),
        to_(input.pages.k, input.pages.v, input.block_table.as<int32_t>()) {}

  void run() {
    if (in_.params.order == PbsOrder::kSpan && num_segments_ > 0) score_keys();
    for (int64_t i = 0; i < num_segments_; ++i) write_segment(i, places_of(i));
    for (int64_t at = span_.begin + num_segments_ * segment_; at < span_.end; at += kPageSize) {
      write_rest(at, std::min<int64_t>(kPageSize, span_.end - at));
    }
  }

 private:
  int64_t num_keys() const { return num_segments_ * segment_; }
  // The natural page that holds a position of the job.
  const T* own(const Tensor& pages, int64_t position) const {
    const int64_t row = position - in_.job.begin;
    const Tensor page = pages.at(row / kPageSize).at(kv_head_);
    return page.as<T>() + row % kPageSize * dim_;
  }

  void load_keys();
  void score_keys();
  void add_probabilities(const float* proxies, int64_t num_rows, float share);
  Places places_of(int64_t segment_idx) const;
  void write_segment(int64_t segment_idx, const Places& places);
  void write_rest(int64_t position, int64_t num_keys);

  const PbsInput& in_;
  PbsSpan span_;
  int64_t kv_head_;
  int64_t group_;
  int64_t dim_;
  int64_t segment_;
  int64_t num_segments_;  // complete ones
  PagedKeys<T> to_;
};

template <class T>
void SpanOrder<T>::load_keys() {
  float* keys = scratch_of_this_thread().keys.at_least(num_keys() * dim_);
  for (int64_t at = 0; at < num_keys(); at += kPageSize) {
    float* columns = keys + at / segment_ * dim_ * segment_ + at % segment_;
    transpose(columns, segment_, own(in_.plan.own.k, span_.begin + at), dim_, kPageSize, dim_);
  }
}

template <class T>
void SpanOrder<T>::score_keys() {
  Scratch& scratch = scratch_of_this_thread();
  const int64_t num_proxies = std::min<int64_t>(kPbsBlock, span_.num_rows());
  const int64_t last_row = span_.end - in_.job.begin;
  const Tensor queries = in_.q.rows(last_row - num_proxies, last_row);
  const float share = 1.f / static_cast<float>(num_proxies * group_);
  load_keys();
  std::fill_n(scratch.scores.at_least(num_keys()), num_keys(), 0.f);
  scratch.logits.at_least(kRowChunk * num_keys());
  float* proxies = scratch.proxies.at_least(num_proxies * packed_stride(dim_));
  for (int64_t g = 0; g < group_; ++g) {
    pack_queries<T>(proxies, queries, kv_head_ * group_ + g, in_.scale);
    for (int64_t first = 0; first < num_proxies; first += kRowChunk) {
      add_probabilities(proxies + first * packed_stride(dim_),
                        std::min(kRowChunk, num_proxies - first), share);
    }
  }
}

template <class T>
void SpanOrder<T>::add_probabilities(const float* proxies, int64_t num_rows, float share) {
  Scratch& scratch = scratch_of_this_thread();
  float* logits = scratch.logits.data();
  for (int64_t i = 0; i < num_segments_; ++i) {
    matmul(logits + i * segment_, num_keys(), proxies, packed_stride(dim_),
           scratch.keys.data() + i * dim_ * segment_, segment_, num_rows, segment_, dim_,
           Accumulate::kOverwrite);
  }
  for (int64_t row = 0; row < num_rows; ++row) {
    float* weights = logits + row * num_keys();
    SoftmaxState state;
    softmax_step(state, weights, num_keys(), num_keys());
    const float scale = share / state.sum;
    for (int64_t j = 0; j < num_keys(); j += kLanes) {
      float* score = scratch.scores.data() + j;
      store(score, load(score) + load(weights + j) * scale);
    }
  }
}

template <class T>
Places SpanOrder<T>::places_of(int64_t segment_idx) const {
  Places places;
  for (int i = 0; i < kSegmentMax; ++i) places[i] = static_cast<uint8_t>(i);
  if (in_.params.order == PbsOrder::kNatural) return places;
  float* scores = scratch_of_this_thread().scores.data() + segment_idx * segment_;
  const bool holds_token_0 = span_.begin == 0 && segment_idx == 0;
  if (holds_token_0 && in_.params.sink > 0) scores[0] = std::numeric_limits<float>::infinity();
  // Scores are not negative, so their bits compare as they do. The complement turns "score
  // descending, position ascending" into one ascending integer.
  std::array<uint64_t, kSegmentMax> ranks;
  for (int64_t i = 0; i < segment_; ++i) {
    ranks[i] = uint64_t{~std::bit_cast<uint32_t>(scores[i])} << 32 | static_cast<uint64_t>(i);
  }
  std::sort(ranks.begin(), ranks.begin() + segment_);
  for (int64_t i = 0; i < segment_; ++i) places[i] = static_cast<uint8_t>(ranks[i]);
  return places;
}

template <class T>
void SpanOrder<T>::write_segment(int64_t segment_idx, const Places& places) {
  const int64_t base = span_.begin + segment_idx * segment_;
  const size_t bytes = static_cast<size_t>(dim_) * sizeof(T);
  for (int64_t first = 0; first < segment_; first += kPageSize) {
    const int64_t page_idx = (base + first) / kPageSize;
    for (int64_t i = 0; i < kPageSize; ++i) {
      const int64_t position = base + places[first + i];
      std::memcpy(to_.k(page_idx, kv_head_) + i * dim_, own(in_.plan.own.k, position), bytes);
      std::memcpy(to_.v(page_idx, kv_head_) + i * dim_, own(in_.plan.own.v, position), bytes);
    }
    write_page_moments<T>(in_.pages, to_.page(page_idx), kv_head_);
  }
}

template <class T>
void SpanOrder<T>::write_rest(int64_t position, int64_t num_keys) {
  const int64_t page_idx = position / kPageSize;
  const size_t bytes = static_cast<size_t>(num_keys * dim_) * sizeof(T);
  std::memcpy(to_.k(page_idx, kv_head_), own(in_.plan.own.k, position), bytes);
  std::memcpy(to_.v(page_idx, kv_head_), own(in_.plan.own.v, position), bytes);
}

template <class T>
void order(const PbsInput& input, ThreadPool& pool) {
  const int64_t num_kv_heads = input.pages.k.dim(1);
  pool.parallel_for(num_spans(input.job) * num_kv_heads, [&](int64_t item) {
    const PbsSpan span = span_of(input.job, static_cast<int32_t>(item / num_kv_heads));
    SpanOrder<T>(input, span, item % num_kv_heads).run();
  });
}

}  // namespace

int64_t pbs_scratch_bytes(const PbsPlanShape&) { return 0; }

void pbs_order(const PbsOrderArgs& args, ThreadPool& pool) {
  args.input.q.dtype == DType::kBF16 ? order<BF16>(args.input, pool)
                                     : order<float>(args.input, pool);
}

}  // namespace pbserve::kernels::cpu
