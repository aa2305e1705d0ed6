// Each filter keeps a prefix of the candidates in the order (logit descending, id ascending), so a
// Cut, the last candidate kept, describes the set. Weights are integers, exp(logit - max) in units
// of 2^-40: their sums do not depend on the order of addition, and a draw is exact.
//
// A single row sorts nothing: top-k selects in linear time, top-p pops its few heaviest candidates
// from a heap, and the draw walks the vocabulary once.
#include "kernels/ops/sample.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "kernels/core/philox.h"
#include "kernels/cpu/vec_math.h"

namespace pbserve::kernels::cpu {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr float kWeightOne = 1099511627776.f;  // 2^40; a vocabulary of 2^23 ids still fits 64 bits

struct Candidate {
  float logit;
  int32_t id;
};

// Order of preference.
bool before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

struct RowParams {
  float temperature;
  int32_t top_k;
  float top_p;
  float min_p;
  uint64_t seed;
  int32_t position;
};

// One per thread; grows to the vocabulary and is reused.
struct Scratch {
  std::vector<float> logits;  // banned ids and NaN at -infinity
  std::vector<float> exps;    // exp((logit - max) / temperature)
  std::vector<Candidate> candidates;
};

uint64_t weight_of(float e) { return static_cast<uint64_t>(e * kWeightOne); }

Candidate best_of(std::span<const float> logits) {
  Candidate best{.logit = kMinusInfinity, .id = kNoToken};
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > best.logit) best = {.logit = logits[i], .id = static_cast<int32_t>(i)};
  }
  return best;
}

void copy_allowed(std::vector<float>& to, std::span<const float> logits,
                  std::span<const int32_t> banned) {
  to.assign(logits.begin(), logits.end());
  for (float& logit : to) {
    if (std::isnan(logit)) logit = kMinusInfinity;
  }
  for (const int32_t id : banned) {
    if (id >= 0 && id < static_cast<int32_t>(to.size()))
      to[static_cast<size_t>(id)] = kMinusInfinity;
  }
}

// The maximum may be infinite: equal logits have distance 0 without a subtraction.
void fill_exps(std::vector<float>& exps, std::span<const float> logits, float top,
               float temperature) {
  exps.resize(logits.size());
  const int64_t size = static_cast<int64_t>(logits.size());
  for (int64_t i = 0; i < size; i += kLanes) {
    const int64_t count = std::min<int64_t>(kLanes, size - i);
    const Vec logit = load(logits.data() + i, count);
    const Vec distance = logit == splat(top) ? Vec{} : (logit - top) / temperature;
    store(exps.data() + i, exp(distance), count);
  }
}

// The candidate that ends the prefix which top_k and then top_p keep.
Candidate find_cut(Scratch& scratch, const RowParams& params) {
  std::vector<Candidate>& pool = scratch.candidates;
  pool.clear();
  for (size_t i = 0; i < scratch.logits.size(); ++i) {
    if (scratch.logits[i] > kMinusInfinity) {
      pool.push_back({.logit = scratch.logits[i], .id = static_cast<int32_t>(i)});
    }
  }
  if (params.top_k > 0 && static_cast<size_t>(params.top_k) < pool.size()) {
    std::nth_element(pool.begin(), pool.begin() + (params.top_k - 1), pool.end(), before);
    pool.resize(static_cast<size_t>(params.top_k));
  }
  if (params.top_p >= 1.f) return *std::max_element(pool.begin(), pool.end(), before);
  uint64_t total = 0;
  for (const Candidate& c : pool) total += weight_of(scratch.exps[static_cast<size_t>(c.id)]);
  const double wanted = static_cast<double>(params.top_p) * static_cast<double>(total);
  const auto after = [](const Candidate& a, const Candidate& b) { return before(b, a); };
  std::make_heap(pool.begin(), pool.end(), after);
  uint64_t taken = 0;
  for (auto end = pool.end();; --end) {
    const Candidate next = pool.front();
    taken += weight_of(scratch.exps[static_cast<size_t>(next.id)]);
    if (static_cast<double>(taken) >= wanted || end - pool.begin() == 1) return next;
    std::pop_heap(pool.begin(), end, after);
  }
}

// Zeroes the exponentials of everything that a filter drops. The maximum itself stays.
void apply_filters(Scratch& scratch, const RowParams& params) {
  if (params.top_k > 0 || params.top_p < 1.f) {
    const Candidate cut = find_cut(scratch, params);
    for (size_t i = 0; i < scratch.exps.size(); ++i) {
      const Candidate candidate{.logit = scratch.logits[i], .id = static_cast<int32_t>(i)};
      if (before(cut, candidate)) scratch.exps[i] = 0.f;
    }
  }
  for (float& e : scratch.exps) e = e >= params.min_p ? e : 0.f;
}

// The first id at which the running sum of weights passes a uniform point of [0, total).
int32_t draw(std::span<const float> exps, const RowParams& params) {
  uint64_t total = 0;
  for (const float e : exps) total += weight_of(e);
  const uint64_t bits = philox_bits(params.seed, static_cast<uint32_t>(params.position));
  const auto point = static_cast<uint64_t>(static_cast<unsigned __int128>(bits) * total >> 64);
  uint64_t sum = 0;
  for (size_t i = 0; i < exps.size(); ++i) {
    sum += weight_of(exps[i]);
    if (sum > point) return static_cast<int32_t>(i);
  }
  die("sample: the running sum never passed the point");
}

int32_t sample_row(std::span<const float> logits, std::span<const int32_t> banned,
                   const RowParams& params) {
  thread_local Scratch scratch;
  copy_allowed(scratch.logits, logits, banned);
  const Candidate best = best_of(scratch.logits);
  if (best.id == kNoToken || params.temperature <= 0.f) return best.id;
  fill_exps(scratch.exps, scratch.logits, best.logit, params.temperature);
  apply_filters(scratch, params);
  return draw(scratch.exps, params);
}

}  // namespace

void sample(const SampleArgs& args, ThreadPool& pool) {
  const size_t vocab_size = static_cast<size_t>(args.logits.dim(1));
  pool.parallel_for(args.logits.dim(0), [&](int64_t row) {
    const RowParams params{.temperature = args.temperature.as<float>()[row],
                           .top_k = args.top_k.as<int32_t>()[row],
                           .top_p = args.top_p.as<float>()[row],
                           .min_p = args.min_p.as<float>()[row],
                           .seed = args.seed.as<uint64_t>()[row],
                           .position = args.position.as<int32_t>()[row]};
    const int32_t to = args.index.as<int32_t>()[row];
    check(to >= 0 && to < args.token.dim(0), "sample: index outside token");
    args.token.as<int32_t>()[to] =
        sample_row({args.logits.as<float>() + row * args.logits.dim(1), vocab_size},
                   {args.banned.as<int32_t>() + row * kMaxBannedIds, kMaxBannedIds}, params);
  });
}

}  // namespace pbserve::kernels::cpu
