// PrefillCost: what prefill takes, in milliseconds, by the jobs that were measured. A row costs its
// matrix products, whatever stands before it, and its attention, which grows with what stands
// before it: ms = a rows + b pairs, a pair being a row and a token it may see. Both rates are
// learnt, apart for dense attention and PBS, by least squares over the jobs so far, of which newer
// ones weigh more. Until jobs of different lengths have been seen, the model's own counts of
// operations say how the two compare. Engine thread only.
#pragma once

#include <array>
#include <cstdint>

#include "engine/step.h"

namespace pbserve::models {
struct ModelConfig;
}

namespace pbserve::engine {

class PrefillCost {
 public:
  // Operations of one row beside those of one pair of a row and a token.
  struct Prior {
    double row;
    double pair;
  };
  static Prior prior_of(const models::ModelConfig& model);

  PrefillCost() : PrefillCost(Prior{1, 0}) {}
  explicit PrefillCost(const Prior& prior) : prior_(prior) {}

  // A chunk that was computed in so many milliseconds, of which it had the device to itself.
  void observe(const PrefillChunk& chunk, double ms);
  bool has_rate() const { return num_observed_ > 0; }

  // Tokens [begin, end) of one prompt. Before the first observation: in a unit of its own, good
  // for comparing prompts alone.
  double ms(int64_t begin, int64_t end, bool pbs) const;

  // The most rows from `begin` on that take no longer than `ms`; at least 1.
  int64_t rows_within(double ms, int64_t begin, bool pbs) const;

 private:
  // ms = x[0] u + x[1] v, where u and v are a job's operations in rows and in pairs.
  struct Fit {
    double uu = 0, uv = 0, vv = 0, ut = 0, vt = 0;  // weighted sums over the jobs
    double row_rate = 0, pair_rate = 0;             // ms an operation; 0 before the first job
  };
  static void solve(Fit& fit);

  Prior prior_;
  std::array<Fit, 2> fits_;  // dense, PBS
  int64_t num_observed_ = 0;
};

}  // namespace pbserve::engine
