// The first half of ordering a span in one pass: the scores of a warpgroup's keys.
//
// A chunk of 64 proxies meets all keys of the span at once, spread over the warpgroups of a
// cluster. Each weighs its products by its own tops, tells the others its tops and sums, and knows
// from theirs what a whole row adds up to: one exchange a chunk, and no product is computed twice.
#pragma once

#include "kernels/cuda/device/cluster.cuh"
#include "kernels/cuda/device/reduce.cuh"
#include "kernels/cuda/device/softmax.cuh"
#include "kernels/cuda/device/tma.cuh"
#include "kernels/cuda/pbs/span_config.h"

namespace pbserve::kernels::cuda {

template <class Config>
class SpanScorer {
 public:
  using Shared = typename Config::Shared;

  __device__ SpanScorer(const SpanParams& params, Shared& shared, const SpanGroup& group)
      : params_(params),
        shared_(shared),
        group_(group),
        num_chunks_(params.order.num_rows / Config::kRows),
        thread_(threadIdx.x % 128),
        row_(thread_ / 32 * 16 + thread_ % 32 / 4) {}

  // By the first thread of the block, if that has keys. What the first product needs comes first.
  __device__ void start() {
    load_rows(0);
    for (int i = 0; i < Config::kBlockGroups; ++i) load_keys(i);
    for (int chunk = 1; chunk < min(num_chunks_, Config::kStages); ++chunk) load_rows(chunk);
  }

  // Leaves the sums of a key's probabilities over the rows of each warp in shared.sums.
  __device__ void run() {
    float sums[kNumSums];
#pragma unroll
    for (int i = 0; i < kNumSums; ++i) sums[i] = 0.f;
    shared_.k_full[group_.group].wait(0);
    if (thread_ == 0) prefetch_values();
    for (int chunk = 0; chunk < num_chunks_; ++chunk) {
      float products[kNumProducts];
      expect_states(chunk);
      multiply(products, chunk);
      weigh(products);
      send_states(chunk);
      wait_for_cluster(shared_.states_full[chunk % 2], chunk / 2 % 2);
      refill(chunk);
      add(sums, products, chunk);
    }
    store(sums);
  }

 private:
  static constexpr int kNumProducts = Config::kKeys / 2;  // of a thread
  static constexpr int kNumSums = Config::kKeys / 4;      // of a thread: its columns

  __device__ void load_rows(int chunk) {
    constexpr int kHeadChunks = kPbsBlock / Config::kRows;
    const int stage = chunk % Config::kStages;
    const int head = group_.kv_head * params_.order.group + chunk / kHeadChunks;
    const int row = group_.span.first_proxy + chunk % kHeadChunks * Config::kRows;
    Mbarrier& full = shared_.q_full[stage];
    full.arrive_and_expect(Config::kPanels * Config::kRowPanelBytes);
    for (int panel = 0; panel < Config::kPanels; ++panel) {
      tma_load(shared_.q[stage] + panel * Config::kRowPanelBytes, params_.q_map, full,
               panel * kPanelCols, head, row);
    }
  }

  // Of the warpgroup `group` of the block.
  __device__ void load_keys(int group) {
    const int begin = group_.begin + group * Config::kKeys;
    const int num_keys = min(Config::kKeys, group_.span.begin + group_.span.num_keys - begin);
    if (num_keys <= 0) return;
    Mbarrier& full = shared_.k_full[group];
    full.arrive_and_expect(num_keys * Config::kDim * 2);
    for (int key = 0; key < num_keys; key += kPbsBlock) {
      const int row = own_row(params_.order, begin + key, group_.kv_head);
      for (int panel = 0; panel < Config::kPanels; ++panel) {
        uint8_t* to = shared_.k[group] + panel * Config::kKeyPanelBytes + key * kPanelRowBytes;
        tma_load(to, params_.k_map, full, panel * kPanelCols, row);
      }
    }
  }

  // They are wanted in the end, in another order; till then the memory has nothing else to do.
  __device__ void prefetch_values() {
    for (int key = 0; key < group_.num_keys; key += kPbsBlock) {
      const int64_t row = own_row(params_.order, group_.begin + key, group_.kv_head);
      prefetch_to_l2(params_.order.own_v + row * Config::kDim, kPbsBlock * Config::kDim * 2);
    }
  }

  __device__ void multiply(float (&products)[kNumProducts], int chunk) {
    const int stage = chunk % Config::kStages;
    const uint64_t q = tile_descriptor(shared_.q[stage], 0);
    const uint64_t k = tile_descriptor(shared_.k[group_.group], 0);
    shared_.q_full[stage].wait(chunk / Config::kStages % 2);
    await_turn();
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < Config::kDim / 16; ++i) {
      wgmma_ss(products, advance(q, i / 4 * Config::kRowPanelBytes + i % 4 * 32),
               advance(k, i / 4 * Config::kKeyPanelBytes + i % 4 * 32),
               i == 0 ? Product::kOverwrite : Product::kAdd);
    }
    wgmma_commit();
    pass_turn();
    wgmma_wait<0>();
    touch(products);
  }

  // The first warpgroup's products come first: while it weighs them, the tensor cores work for the
  // second. Both meet at every exchange, so turns cannot get mixed up.
  __device__ void await_turn() {
    if (group_.group == 1) named_barrier_sync(Config::kTurnBarrier, Config::kThreads);
  }
  __device__ void pass_turn() {
    const bool is_shared = group_.num_groups > group_.number + 1;
    if (group_.group == 0 && is_shared)
      named_barrier_arrive(Config::kTurnBarrier, Config::kThreads);
  }

  // Products become exp2(logit - top), and 0 where there is no key.
  __device__ void weigh(float (&products)[kNumProducts]) {
    if (group_.num_keys < Config::kKeys) {
#pragma unroll
      for (int i = kNumProducts / 2; i < kNumProducts; ++i) products[i] = no_logit();
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float top = no_logit();
#pragma unroll
      for (int i = 2 * r; i < kNumProducts; i += 4) {
        top = fmaxf(top, fmaxf(products[i], products[i + 1]));
      }
      top = warp_reduce<4>(top, Max()) * params_.order.scale_log2;
      float sum = 0.f;
#pragma unroll
      for (int i = 2 * r; i < kNumProducts; i += 4) {
#pragma unroll
        for (int j = i; j < i + 2; ++j) {
          products[j] = fast_exp2(fmaf(products[j], params_.order.scale_log2, -top));
          sum += products[j];
        }
      }
      states_[r] = {top, warp_reduce<4>(sum, Sum())};
    }
  }

  __device__ void expect_states(int chunk) {
    if (threadIdx.x != 0) return;
    shared_.states_full[chunk % 2].arrive_and_expect(group_.num_groups * Config::kRows *
                                                     static_cast<int>(sizeof(float2)));
  }

  // The four lanes of a row tell its upper and its lower row to both blocks. A buffer is written
  // again two chunks later, when all have said by their next states that they have read it.
  __device__ void send_states(int chunk) {
    const int rank = thread_ % 2;
    if (rank >= group_.num_blocks()) return;
    const int r = thread_ % 4 / 2;
    const float2 state = r == 0 ? states_[0] : states_[1];
    const float2& place = shared_.states[chunk % 2][group_.number][row_ + 8 * r];
    store_async(address_in(shared_address(&place), rank), state,
                address_in(shared_.states_full[chunk % 2].address(), rank));
  }

  // All warpgroups have told states of this chunk: its proxies have been multiplied.
  __device__ void refill(int chunk) {
    if (threadIdx.x == 0 && chunk + Config::kStages < num_chunks_) {
      load_rows(chunk + Config::kStages);
    }
    __syncwarp();
  }

  // What this warpgroup's weights of a row are to be multiplied by: its part in the whole row's
  // sum, over the number of rows.
  __device__ float share(int chunk, int r) const {
    float2 states[Config::kGroups];
    float top = no_logit();
#pragma unroll
    for (int i = 0; i < Config::kGroups; ++i) {
      states[i] = i < group_.num_groups ? shared_.states[chunk % 2][i][row_ + 8 * r]
                                        : float2{no_logit(), 0.f};
      top = fmaxf(top, states[i].x);
    }
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < Config::kGroups; ++i) sum += states[i].y * fast_exp2(states[i].x - top);
    return __fdividef(fast_exp2(states_[r].x - top),
                      sum * static_cast<float>(params_.order.num_rows));
  }

  __device__ void add(float (&sums)[kNumSums], const float (&products)[kNumProducts], int chunk) {
    const float upper = share(chunk, 0);
    const float lower = share(chunk, 1);
#pragma unroll
    for (int i = 0; i < kNumSums; ++i) {
      const int at = i / 2 * 4 + i % 2;
      sums[i] = fmaf(products[at], upper, fmaf(products[at + 2], lower, sums[i]));
    }
  }

  // Lanes that differ in one bit add up their sums; each keeps one half of them.
  template <int kCount>
  __device__ void halve(float (&sums)[kNumSums], int distance) {
    const bool keeps_upper = (thread_ & distance) != 0;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const float sent = keeps_upper ? sums[i] : sums[i + kCount];
      const float kept = keeps_upper ? sums[i + kCount] : sums[i];
      sums[i] = kept + __shfl_xor_sync(kFullWarp, sent, distance);
    }
  }

  // The same tree of additions for every key, so that equal keys have equal scores.
  __device__ void store(float (&sums)[kNumSums]) {
    halve<kNumSums / 2>(sums, 16);
    halve<kNumSums / 4>(sums, 8);
    halve<kNumSums / 8>(sums, 4);
    constexpr int kLeft = kNumSums / 8;
    const int lane = thread_ % 32;
    const int first = (lane / 16 * 4 + lane / 8 % 2 * 2 + lane / 4 % 2) * kLeft;
    float* to = shared_.sums[group_.group][thread_ / 32];
#pragma unroll
    for (int i = 0; i < kLeft; i += 2) {
      const int column = (first + i) / 2 * 8 + lane % 4 * 2;
      *reinterpret_cast<float2*>(to + column) = float2{sums[i], sums[i + 1]};
    }
  }

  __device__ static float no_logit() { return -__int_as_float(0x7f800000); }

  const SpanParams& params_;
  Shared& shared_;
  const SpanGroup& group_;
  const int num_chunks_;
  const int thread_;  // of the warpgroup
  const int row_;     // of a chunk: the thread's upper one
  float2 states_[2];  // (top, sum) of the chunk's upper and lower row over the warpgroup's keys
};

}  // namespace pbserve::kernels::cuda
