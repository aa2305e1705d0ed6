// One block per row. A row's logits stay in device memory and are read once per pass, most often
// from the L2 cache: no pass writes anything of the vocabulary's size.
//
// A filter keeps a prefix of the candidates in the order (logit descending, id ascending), which is
// the ascending order of a 54-bit key. Its end is found from the key's top digit down: a histogram
// of the candidates that share the digits chosen so far says in which digit the prefix ends. Counts
// and weights are integers (weights in units of 2^-40), so the result is exact and does not depend
// on the order in which threads add.
#include "kernels/ops/sample.h"

#include "kernels/core/philox.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/device/ldst.cuh"
#include "kernels/cuda/device/reduce.cuh"
#include "kernels/cuda/device/trap.cuh"
#include "kernels/cuda/stream_state.h"

namespace pbserve::kernels::cuda {
namespace {

using Mass = unsigned long long;  // a sum of weights
using Key = unsigned long long;

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int kBatch = 4;  // vectors on their way per thread

constexpr float kWeightOne = 1099511627776.f;          // 2^40
constexpr float kWeightUnit = 9.094947017729282e-13f;  // 2^-40

constexpr int kIdBits = 22;
constexpr int kKeyBits = 32 + kIdBits;
constexpr Key kNoKey = ~Key{0};
constexpr int kBins = 2048;  // of the widest digit
constexpr int kLevels = 5;   // digits of 11, 11 and 10 bits of the logit, 11 and 11 of the id

struct Params {
  int32_t* token;            // [S]
  const int32_t* index;      // [B]
  const float* logits;       // [B, V]
  const float* temperature;  // [B]
  const int32_t* top_k;      // [B]
  const float* top_p;        // [B]
  const float* min_p;        // [B]
  const uint64_t* seed;      // [B]
  const int32_t* position;   // [B]
  const int32_t* banned;     // [B, kMaxBannedIds]
  int64_t num_tokens;        // S
  int vocab_size;            // V
};

struct Shared {
  unsigned count[kBins];
  unsigned mass_low[kBins];
  unsigned mass_high[kBins];
  Mass warp_mass[kWarps];
  Key warp_key[kWarps];
  int warp_count[kWarps];
  int32_t banned[kMaxBannedIds];
  int num_banned;
  // The bin in which a prefix ends.
  int bin;
  unsigned bin_count;
  Mass mass_before;
  // The range of ids that holds the drawn one.
  int range_begin;
  Mass range_before;
};

// Ascending keys are descending logits, then ascending ids. Adding zero makes -0 the equal of +0.
__device__ __forceinline__ Key key_of(float logit, int id) {
  const unsigned bits = __float_as_uint(logit + 0.f);
  const unsigned ascending = (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
  return Key{~ascending} << kIdBits | static_cast<unsigned>(id);
}

__device__ __forceinline__ int id_of(Key key) {
  return static_cast<int>(key & ((Key{1} << kIdBits) - 1));
}

// Mirrors cpu::exp (kernels/cpu/vec_math.h) operation by operation, with the fused multiply-adds
// that a CPU compiler makes of it: weights, and so tokens, agree between the backends.
__device__ __forceinline__ float exp_as_cpu(float x) {
  constexpr float kRoundToInt = 12582912.f;  // 1.5 * 2^23
  const float shifted = __fmaf_rn(x, 1.44269504f, kRoundToInt);
  const float n = shifted - kRoundToInt;
  const float r = __fmaf_rn(-n, 1.42860677e-6f, __fmaf_rn(-n, 0.693145752f, x));
  float y = __fmaf_rn(r, 1.f / 5040, 1.f / 720);
  y = __fmaf_rn(y, r, 1.f / 120);
  y = __fmaf_rn(y, r, 1.f / 24);
  y = __fmaf_rn(y, r, 1.f / 6);
  y = __fmaf_rn(y, r, 0.5f);
  y = __fmaf_rn(y, r, 1.f);
  y = __fmaf_rn(y, r, 1.f);
  y = __uint_as_float(__float_as_uint(y) + (__float_as_uint(shifted) << 23));
  return x < -87.f ? 0.f : y;
}

// exp of the distance to the best logit, which may be infinite.
struct Softmax {
  float top;
  float temperature;

  __device__ __forceinline__ float exp(float logit) const {
    return exp_as_cpu(logit == top ? 0.f : __fdiv_rn(logit - top, temperature));
  }
};

__device__ __forceinline__ Mass weight_of(float exp) {
  return exp < kWeightUnit ? 0 : __float2ull_rz(exp * kWeightOne);
}

// The candidates of one row: logits above -infinity (a NaN is not) that are not banned.
template <int kVec>
struct Row {
  const float* logits;  // [V]
  const int32_t* banned;
  int num_banned;
  int vocab_size;

  // use(id, logit) for the candidates in [begin, end) that are this thread's: vectors `place`,
  // place + num_places, ... of the range. `begin` is a multiple of kVec, and `end` is, or is V.
  template <class Use>
  __device__ __forceinline__ void for_each(int begin, int end, int place, int num_places,
                                           Use use) const {
    for (int at = begin + place * kVec; at < end; at += kBatch * num_places * kVec) {
      float values[kBatch][kVec];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const int first = at + i * num_places * kVec;
        if (first < end) load(values[i], logits + first);
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const int first = at + i * num_places * kVec;
        if (first < end) use_vector(first, values[i], use);
      }
    }
  }

  template <class Use>
  __device__ __forceinline__ void for_each(Use use) const {
    for_each(0, vocab_size, threadIdx.x, kThreads, use);
  }

  template <class Use>
  __device__ __forceinline__ void use_vector(int first, float (&values)[kVec], Use use) const {
    for (int b = 0; b < num_banned; ++b) {
#pragma unroll
      for (int j = 0; j < kVec; ++j) {
        if (banned[b] == first + j) values[j] = -INFINITY;
      }
    }
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      if (values[j] > -INFINITY) use(first + j, values[j]);
    }
  }
};

struct Best {
  Key key;    // kNoKey: the row has no candidate
  int count;  // candidates
};

template <int kVec>
__device__ Best find_best(Shared& shared, const Row<kVec>& row) {
  float logit = -INFINITY;
  int id = 0;
  int count = 0;
  row.for_each([&](int i, float value) {
    ++count;
    if (value > logit) {  // ids ascend: the first of equals stays
      logit = value;
      id = i;
    }
  });
  const Key own = count == 0 ? kNoKey : key_of(logit, id);
  const Key key = ~block_reduce<kWarps>(~own, Max{}, shared.warp_key);
  return {.key = key, .count = block_reduce<kWarps>(count, Sum{}, shared.warp_count)};
}

// Ends a prefix after its first `count` candidates.
struct ByCount {
  static constexpr bool kByMass = false;
  Mass count;

  __device__ Mass weight(float) const { return 1; }
  __device__ void set_total(Mass) {}
  __device__ bool is_reached(Mass sum) const { return sum >= count; }
};

// Ends a prefix as soon as it holds `share` of the whole mass, and at least one weight.
struct ByMass {
  static constexpr bool kByMass = true;
  Softmax softmax;
  float share;
  double wanted = 0;

  __device__ Mass weight(float logit) const { return weight_of(softmax.exp(logit)); }
  __device__ void set_total(Mass total) {
    wanted = fmax(static_cast<double>(share) * static_cast<double>(total), 1.);
  }
  __device__ bool is_reached(Mass sum) const { return static_cast<double>(sum) >= wanted; }
};

// Shared memory adds 32 bits natively, so a sum is kept in two halves; the low one carries.
__device__ __forceinline__ void add_mass(Shared& shared, unsigned bin, Mass mass) {
  const auto low = static_cast<unsigned>(mass);
  const unsigned before = atomicAdd(&shared.mass_low[bin], low);
  const unsigned high = static_cast<unsigned>(mass >> 32) + (before + low < before ? 1 : 0);
  if (high != 0) atomicAdd(&shared.mass_high[bin], high);
}

template <class Goal>
__device__ __forceinline__ Mass bin_mass(const Shared& shared, int bin) {
  if constexpr (!Goal::kByMass) return shared.count[bin];
  return Mass{shared.mass_high[bin]} << 32 | shared.mass_low[bin];
}

// Sum over the warps before this one, and over all.
struct WarpSums {
  Mass before;
  Mass total;
};

__device__ WarpSums sum_warps(Shared& shared, Mass warp_mass) {
  const int warp = threadIdx.x / kWarpSize;
  if (threadIdx.x % kWarpSize == 0) shared.warp_mass[warp] = warp_mass;
  __syncthreads();
  WarpSums sums{.before = 0, .total = 0};
#pragma unroll
  for (int i = 0; i < kWarps; ++i) {
    if (i < warp) sums.before += shared.warp_mass[i];
    sums.total += shared.warp_mass[i];
  }
  return sums;
}

// Finds the bin in which the prefix ends; `before` is the mass that precedes all bins. A thread has
// two neighbouring bins.
template <class Goal>
__device__ void choose_bin(Shared& shared, Goal& goal, Mass before, bool is_first_level) {
  const int bin = 2 * static_cast<int>(threadIdx.x);
  const Mass mass[2] = {bin_mass<Goal>(shared, bin), bin_mass<Goal>(shared, bin + 1)};
  const Mass own = mass[0] + mass[1];
  const WarpSums sums = sum_warps(shared, warp_reduce(own, Sum{}));
  if (is_first_level) goal.set_total(sums.total);
  Mass sum = before + sums.before + warp_sum_before(own);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (!goal.is_reached(sum) && goal.is_reached(sum + mass[i])) {  // in one bin of all
      shared.bin = bin + i;
      shared.bin_count = shared.count[bin + i];
      shared.mass_before = sum;
    }
    sum += mass[i];
  }
  __syncthreads();
}

// The largest key that the goal keeps, among the candidates up to `limit`. REQUIRES: the goal is
// reached by all of them together.
template <class Goal, int kVec>
__device__ Key find_limit(Shared& shared, const Row<kVec>& row, Key limit, Goal goal) {
  Key prefix = 0;  // the digits chosen so far
  Mass before = 0;
  int shift = kKeyBits;
  for (int level = 0; level < kLevels; ++level) {
    const int prefix_shift = shift;
    shift -= level == 2 ? 10 : 11;
    for (int bin = threadIdx.x; bin < kBins; bin += kThreads) {
      shared.count[bin] = 0;
      shared.mass_low[bin] = 0;
      shared.mass_high[bin] = 0;
    }
    __syncthreads();
    row.for_each([&](int id, float logit) {
      const Key key = key_of(logit, id);
      if (key > limit || key >> prefix_shift != prefix) return;
      const Mass weight = goal.weight(logit);
      if (weight == 0) return;
      const unsigned bin = static_cast<unsigned>(key >> shift) % kBins;
      const unsigned digit = level == 2 ? bin % (kBins / 2) : bin;
      atomicAdd(&shared.count[digit], 1u);
      if constexpr (Goal::kByMass) add_mass(shared, digit, weight);
    });
    __syncthreads();
    choose_bin(shared, goal, before, level == 0);
    prefix = prefix << (prefix_shift - shift) | static_cast<unsigned>(shared.bin);
    before = shared.mass_before;
    const bool is_single = shared.bin_count == 1;
    __syncthreads();
    if (is_single) break;
  }
  return min(limit, ((prefix + 1) << shift) - 1);
}

// What the filters leave: keys up to `limit`, exponentials from min_p on.
struct Filter {
  Softmax softmax;
  Key limit;
  float min_p;

  __device__ __forceinline__ Mass weight(int id, float logit) const {
    if (limit != kNoKey && key_of(logit, id) > limit) return 0;
    const float exp = softmax.exp(logit);
    return exp >= min_p ? weight_of(exp) : 0;
  }
};

// Splits ids [begin, end) among the warps and narrows the range to the part in which the running
// sum passes the point that `point_of(total)` gives. `point` becomes its distance from the part's
// start.
template <int kVec, class PointOf>
__device__ void narrow_range(Shared& shared, const Row<kVec>& row, const Filter& filter, int& begin,
                             int& end, Mass& point, PointOf point_of) {
  constexpr int kUnit = kWarpSize * kVec;
  const int per_warp = ((end - begin + kWarps - 1) / kWarps + kUnit - 1) / kUnit * kUnit;
  const int warp = threadIdx.x / kWarpSize;
  const int from = min(begin + warp * per_warp, end);
  const int to = min(from + per_warp, end);
  Mass mass = 0;
  row.for_each(from, to, threadIdx.x % kWarpSize, kWarpSize,
               [&](int id, float logit) { mass += filter.weight(id, logit); });
  mass = warp_reduce(mass, Sum{});
  if (threadIdx.x == 0) {  // stays if nothing has a weight: then no id is found
    shared.range_begin = begin;
    shared.range_before = 0;
  }
  const WarpSums sums = sum_warps(shared, mass);
  point = point_of(sums.total);
  if (threadIdx.x % kWarpSize == 0 && sums.before <= point && point < sums.before + mass) {
    shared.range_begin = from;
    shared.range_before = sums.before;
  }
  __syncthreads();
  begin = shared.range_begin;
  end = min(begin + per_warp, end);
  point -= shared.range_before;
  __syncthreads();
}

// The first id of [begin, end) at which the running sum passes the point. One warp calls it; the
// id is returned to all lanes.
template <int kVec>
__device__ int find_id(const Row<kVec>& row, const Filter& filter, int begin, int end, Mass point) {
  const int lane = threadIdx.x % kWarpSize;
  for (int at = begin; at < end; at += kWarpSize * kVec) {
    Mass own = 0;
    const int stop = min(at + kWarpSize * kVec, end);
    row.for_each(at, stop, lane, kWarpSize,
                 [&](int id, float logit) { own += filter.weight(id, logit); });
    Mass sum = warp_sum_before(own);
    const unsigned passed = __ballot_sync(kFullWarp, point < sum + own);
    if (passed == 0) {
      point -= warp_reduce(own, Sum{});
      continue;
    }
    int found = kNoToken;
    row.for_each(at, stop, lane, kWarpSize, [&](int id, float logit) {
      sum += filter.weight(id, logit);
      if (found == kNoToken && point < sum) found = id;
    });
    return __shfl_sync(kFullWarp, found, __ffs(static_cast<int>(passed)) - 1);
  }
  return kNoToken;
}

// The banned ids without the unused entries. The first warp calls it.
__device__ void set_banned(Shared& shared, const int32_t* banned) {
  static_assert(kMaxBannedIds == kWarpSize);
  const unsigned lane = threadIdx.x;
  const int32_t id = banned[lane];
  const unsigned used = __ballot_sync(kFullWarp, id >= 0);
  if (id >= 0) shared.banned[__popc(used & ((1u << lane) - 1))] = id;
  if (lane == 0) shared.num_banned = __popc(used);
}

template <int kVec>
__global__ void __launch_bounds__(kThreads) sample_kernel(Params p) {
  __shared__ Shared shared;
  const int64_t b = blockIdx.x;
  const int32_t to = p.index[b];
  trap_unless(to >= 0 && to < p.num_tokens);
  if (threadIdx.x < kWarpSize) set_banned(shared, p.banned + b * kMaxBannedIds);
  __syncthreads();
  const Row<kVec> row{.logits = p.logits + b * p.vocab_size,
                      .banned = shared.banned,
                      .num_banned = shared.num_banned,
                      .vocab_size = p.vocab_size};
  const Best best = find_best(shared, row);
  const float temperature = p.temperature[b];
  if (best.key == kNoKey || temperature <= 0.f) {
    if (threadIdx.x == 0) p.token[to] = best.key == kNoKey ? kNoToken : id_of(best.key);
    return;
  }

  const Softmax softmax{.top = row.logits[id_of(best.key)], .temperature = temperature};
  Filter filter{.softmax = softmax, .limit = kNoKey, .min_p = p.min_p[b]};
  const int top_k = p.top_k[b];
  if (top_k > 0 && top_k < best.count) {
    filter.limit = find_limit(shared, row, kNoKey, ByCount{.count = static_cast<unsigned>(top_k)});
  }
  if (p.top_p[b] < 1.f) {
    filter.limit =
        find_limit(shared, row, filter.limit, ByMass{.softmax = softmax, .share = p.top_p[b]});
  }

  int begin = 0;
  int end = p.vocab_size;
  Mass point = 0;
  const uint64_t bits = philox_bits(p.seed[b], static_cast<uint32_t>(p.position[b]));
  narrow_range(shared, row, filter, begin, end, point,
               [&](Mass total) { return __umul64hi(bits, total); });
  const Mass inner = point;
  narrow_range(shared, row, filter, begin, end, point, [&](Mass) { return inner; });
  if (threadIdx.x >= kWarpSize) return;
  const int id = find_id(row, filter, begin, end, point);
  if (threadIdx.x == 0) p.token[to] = id;
}

}  // namespace

void sample(const SampleArgs& args, CudaHandle stream) {
  const int64_t num_rows = args.logits.dim(0);
  const int64_t vocab_size = args.logits.dim(1);
  check(vocab_size < (int64_t{1} << kIdBits), "sample: vocabulary of 2^22 ids or more");
  if (num_rows == 0) return;
  const Params p{.token = args.token.as<int32_t>(),
                 .index = args.index.as<int32_t>(),
                 .logits = args.logits.as<float>(),
                 .temperature = args.temperature.as<float>(),
                 .top_k = args.top_k.as<int32_t>(),
                 .top_p = args.top_p.as<float>(),
                 .min_p = args.min_p.as<float>(),
                 .seed = args.seed.as<uint64_t>(),
                 .position = args.position.as<int32_t>(),
                 .banned = args.banned.as<int32_t>(),
                 .num_tokens = args.token.dim(0),
                 .vocab_size = static_cast<int>(vocab_size)};
  const auto grid = static_cast<unsigned>(num_rows);
  if (is_vectorizable<4>(p.logits, vocab_size)) {
    sample_kernel<4><<<grid, kThreads, 0, stream_of(stream)>>>(p);
  } else {
    sample_kernel<1><<<grid, kThreads, 0, stream_of(stream)>>>(p);
  }
  check_launch("sample");
}

}  // namespace pbserve::kernels::cuda
