// The order of the keys inside each segment: most attended by the span's last queries first.
//
// Two passes over the keys keep memory linear: the first leaves every proxy query's softmax maximum
// and sum, the second turns logits into probabilities segment by segment and sorts.

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "kernels/core/bits.h"
#include "kernels/cpu/aligned_floats.h"
#include "kernels/cpu/paged_keys.h"
#include "kernels/cpu/query_rows.h"
#include "kernels/cpu/softmax_row.h"
#include "kernels/cpu/tile.h"
#include "kernels/cpu/transpose.h"
#include "kernels/ops/pbs.h"

namespace pbserve::kernels::cpu {
namespace {

constexpr int kSegmentMax = 256;
constexpr int64_t kRowChunk = 24;  // proxies whose logits over a segment are alive at once: 24 KB

int64_t scratch_bytes(int64_t num_q_heads) {  // a state for every proxy query of every head
  return num_q_heads * kPbsBlock * static_cast<int64_t>(sizeof(SoftmaxState));
}

struct Scratch {
  AlignedFloats proxies;  // [num_proxies, packed_stride(D)]
  AlignedFloats keys;     // [D, S]: keys are columns
  AlignedFloats logits;   // [kRowChunk, S]
};

Scratch& scratch_of_this_thread() {
  thread_local Scratch scratch;
  return scratch;
}

template <class T>
struct OrderTask {
  explicit OrderTask(const PbsOrderArgs& arguments)
      : args(arguments),
        pages(args.k_pages, args.v_pages, args.block_table.as<int32_t>()),
        dim(args.q.dim(2)),
        num_q_heads(args.q.dim(1)),
        num_kv_heads(args.k_pages.dim(1)),
        segment(args.params.segment),
        num_segments(args.span.end / segment),
        num_proxies(std::min<int64_t>(kPbsBlock, args.span.num_rows())) {}

  const PbsOrderArgs& args;
  PagedKeys<T> pages;
  int64_t dim;
  int64_t num_q_heads;
  int64_t num_kv_heads;
  int64_t segment;
  int64_t num_segments;  // complete ones
  int64_t num_proxies;

  int64_t group() const { return num_q_heads / num_kv_heads; }
  SoftmaxState* states(int64_t head) const {  // [num_proxies]
    return reinterpret_cast<SoftmaxState*>(args.plan.scratch.data) + head * kPbsBlock;
  }

  void pack_proxies(int64_t head) const;
  void load_segment(int64_t kv_head, int64_t segment_idx) const;
  template <class Body>
  void for_each_proxy(const Body& body) const;

  void reduce_proxies(int64_t head) const;
  void score_segment(int64_t kv_head, int64_t segment_idx, float* scores) const;
  void order_segment(int64_t kv_head, int64_t segment_idx) const;
  void copy_permuted(int64_t kv_head, int64_t segment_idx, const uint8_t* order) const;
  void pool_block(int64_t kv_head, int64_t block) const;
};

template <class T>
void OrderTask<T>::pack_proxies(int64_t head) const {
  Scratch& scratch = scratch_of_this_thread();
  scratch.proxies.at_least(num_proxies * packed_stride(dim));
  const int64_t num_rows = args.span.num_rows();
  pack_queries<T>(scratch.proxies.data(), args.q.rows(num_rows - num_proxies, num_rows), head,
                  args.scale);
}

template <class T>
void OrderTask<T>::load_segment(int64_t kv_head, int64_t segment_idx) const {
  float* keys = scratch_of_this_thread().keys.at_least(dim * segment);
  for (int64_t offset = 0; offset < segment; offset += kPageSize) {
    const int64_t page = (segment_idx * segment + offset) / kPageSize;
    transpose(keys + offset, segment, pages.k(page, kv_head), dim, kPageSize, dim);
  }
}

// Calls body(proxy, logits [S]) for the packed proxies over the loaded segment.
template <class T>
template <class Body>
void OrderTask<T>::for_each_proxy(const Body& body) const {
  Scratch& scratch = scratch_of_this_thread();
  float* logits = scratch.logits.at_least(kRowChunk * segment);
  for (int64_t first = 0; first < num_proxies; first += kRowChunk) {
    const int64_t rows = std::min(kRowChunk, num_proxies - first);
    matmul(logits, segment, scratch.proxies.data() + first * packed_stride(dim), packed_stride(dim),
           scratch.keys.data(), segment, rows, segment, dim, Accumulate::kOverwrite);
    for (int64_t i = 0; i < rows; ++i) body(first + i, logits + i * segment);
  }
}

template <class T>
void OrderTask<T>::reduce_proxies(int64_t head) const {
  pack_proxies(head);
  std::fill_n(states(head), num_proxies, SoftmaxState{});
  for (int64_t s = 0; s < num_segments; ++s) {
    load_segment(head / group(), s);
    for_each_proxy([&](int64_t proxy, float* logits) {
      softmax_step(states(head)[proxy], logits, segment, segment);
    });
  }
}

template <class T>
void OrderTask<T>::score_segment(int64_t kv_head, int64_t segment_idx, float* scores) const {
  std::fill_n(scores, segment, 0.f);
  load_segment(kv_head, segment_idx);
  for (int64_t head = kv_head * group(); head < (kv_head + 1) * group(); ++head) {
    pack_proxies(head);
    for_each_proxy([&](int64_t proxy, float* logits) {
      const SoftmaxState state = states(head)[proxy];
      const float share = 1.f / (state.sum * static_cast<float>(num_proxies * group()));
      for (int64_t j = 0; j < segment; j += kLanes) {
        store(scores + j, load(scores + j) + exp(load(logits + j) - state.top) * share);
      }
    });
  }
}

template <class T>
void OrderTask<T>::order_segment(int64_t kv_head, int64_t segment_idx) const {
  alignas(64) std::array<float, kSegmentMax> scores;
  score_segment(kv_head, segment_idx, scores.data());
  // Scores are not negative, so their bits compare as they do. The complement turns "score
  // descending, position ascending" into one ascending integer.
  std::array<uint64_t, kSegmentMax> ranks;
  for (int64_t i = 0; i < segment; ++i) {
    ranks[i] = uint64_t{~std::bit_cast<uint32_t>(scores[i])} << 32 | static_cast<uint64_t>(i);
  }
  std::sort(ranks.begin(), ranks.begin() + segment);
  const Tensor order_row = args.plan.order.at(kv_head);
  uint8_t* order = order_row.as<uint8_t>() + segment_idx * segment;
  for (int64_t i = 0; i < segment; ++i) order[i] = static_cast<uint8_t>(ranks[i]);

  copy_permuted(kv_head, segment_idx, order);
  const int64_t blocks = segment / kPbsBlock;
  for (int64_t i = 0; i < blocks; ++i) pool_block(kv_head, segment_idx * blocks + i);
}

template <class T>
void OrderTask<T>::copy_permuted(int64_t kv_head, int64_t segment_idx, const uint8_t* order) const {
  const int64_t base = segment_idx * segment;
  const size_t bytes = static_cast<size_t>(dim) * sizeof(T);
  T* to_k = args.plan.k.at(kv_head).template as<T>() + base * dim;
  T* to_v = args.plan.v.at(kv_head).template as<T>() + base * dim;
  for (int64_t place = 0; place < segment; ++place) {
    const int64_t position = base + order[place];
    const int64_t page = position / kPageSize;
    const int64_t from = position % kPageSize * dim;
    std::memcpy(to_k + place * dim, pages.k(page, kv_head) + from, bytes);
    std::memcpy(to_v + place * dim, pages.v(page, kv_head) + from, bytes);
  }
}

template <class T>
void OrderTask<T>::pool_block(int64_t kv_head, int64_t block) const {
  const T* from = args.plan.k.at(kv_head).template as<T>() + block * kPbsBlock * dim;
  float* to = args.plan.k_pooled.at(kv_head).template as<float>() + block * dim;
  for (int64_t d = 0; d < dim; d += kLanes) {
    Vec total = {};
    for (int64_t i = 0; i < kPbsBlock; ++i) total += load(from + i * dim + d);
    store(to + d, total * (1.f / kPbsBlock));
  }
}

template <class T>
void order(const PbsOrderArgs& args, ThreadPool& pool) {
  const OrderTask<T> task(args);
  check(args.plan.scratch.numel() >= scratch_bytes(task.num_q_heads), "pbs_order: scratch");
  pool.parallel_for(task.num_q_heads, [&](int64_t head) { task.reduce_proxies(head); });
  pool.parallel_for(task.num_kv_heads * task.num_segments, [&](int64_t item) {
    task.order_segment(item % task.num_kv_heads, item / task.num_kv_heads);
  });
}

}  // namespace

int64_t pbs_scratch_bytes(const PbsPlanShape& shape) { return scratch_bytes(shape.num_q_heads); }

void pbs_order(const PbsOrderArgs& args, ThreadPool& pool) {
  args.q.dtype == DType::kBF16 ? order<BF16>(args, pool) : order<float>(args, pool);
}

}  // namespace pbserve::kernels::cpu
