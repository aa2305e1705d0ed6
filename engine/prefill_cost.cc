#include "engine/prefill_cost.h"

#include <algorithm>
#include <cmath>

#include "models/config.h"

namespace pbserve::engine {

namespace {

// Tokens that the rows [begin, end) see, summed over the rows.
double num_pairs(int64_t begin, int64_t end) {
  const auto first = static_cast<double>(begin);
  const auto last = static_cast<double>(end);
  return (last * last - first * first) / 2;
}

}  // namespace

PrefillCost::Prior PrefillCost::prior_of(const models::ModelConfig& model) {
  const auto hidden = static_cast<double>(model.hidden_size);
  const auto q_width = static_cast<double>(model.num_q_heads * model.head_dim);
  const auto kv_width = static_cast<double>(model.num_kv_heads * model.head_dim);
  const auto ffn = static_cast<double>(model.intermediate_size);
  const double weights = hidden * (2 * q_width + 2 * kv_width + 3 * ffn);  // of a layer
  return {.row = 2 * weights, .pair = 4 * q_width};
}

void PrefillCost::observe(const PrefillChunk& chunk, double measured_ms) {
  const double ms = std::max(measured_ms, 1e-6);  // no clock is finer: a rate of 0 is no rate
  // An observation has lost half of its weight after some twenty full jobs, and no faster than by a
  // fifth a job: settings and company change. Jobs of a few rows forget nothing, since they take as
  // long as reading the weights and say little of what a row costs.
  const double forget_after = prior_.row * 8192 * 30;
  Fit& fit = fits_[chunk.pbs ? 1 : 0];
  const double u = prior_.row * static_cast<double>(chunk.end - chunk.begin);
  const double v = prior_.pair * num_pairs(chunk.begin, chunk.end);
  const double forget = std::max(std::exp(-(u + v) / forget_after), 0.8);
  fit.uu = forget * fit.uu + u * u;
  fit.uv = forget * fit.uv + u * v;
  fit.vv = forget * fit.vv + v * v;
  fit.ut = forget * fit.ut + u * ms;
  fit.vt = forget * fit.vt + v * ms;
  solve(fit);
  ++num_observed_;
}

// Least squares, drawn slightly towards equal rates of both kinds of operation, which decides where
// the jobs so far were all alike.
void PrefillCost::solve(Fit& fit) {
  constexpr double kPull = 0.005;
  const double both = fit.uu + 2 * fit.uv + fit.vv;
  const double equal = (fit.ut + fit.vt) / both;  // the best common rate
  const double pull = kPull * both;
  const double uu = fit.uu + pull;
  const double vv = fit.vv + pull;
  const double ut = fit.ut + pull * equal;
  const double vt = fit.vt + pull * equal;
  const double determinant = uu * vv - fit.uv * fit.uv;
  fit.row_rate = (ut * vv - vt * fit.uv) / determinant;
  fit.pair_rate = (vt * uu - ut * fit.uv) / determinant;
  // A rate below zero is noise: the other one then explains everything.
  if (fit.row_rate < 0) {
    fit.row_rate = 0;
    fit.pair_rate = vt / vv;
  } else if (fit.pair_rate < 0) {
    fit.pair_rate = 0;
    fit.row_rate = ut / uu;
  }
}

double PrefillCost::ms(int64_t begin, int64_t end, bool pbs) const {
  const Fit& own = fits_[pbs ? 1 : 0];
  const Fit& other = fits_[pbs ? 0 : 1];
  const bool has_own = own.uu > 0;
  const double row_rate = has_own ? own.row_rate : has_rate() ? other.row_rate : 1;
  const double pair_rate = has_own ? own.pair_rate : has_rate() ? other.pair_rate : 1;
  return row_rate * prior_.row * static_cast<double>(end - begin) +
         pair_rate * prior_.pair * num_pairs(begin, end);
}

int64_t PrefillCost::rows_within(double limit_ms, int64_t begin, bool pbs) const {
  int64_t rows = 1;
  int64_t too_many = int64_t{1} << 24;
  if (ms(begin, begin + too_many, pbs) <= limit_ms) return too_many;
  while (too_many - rows > 1) {
    const int64_t middle = rows + (too_many - rows) / 2;
    (ms(begin, begin + middle, pbs) <= limit_ms ? rows : too_many) = middle;
  }
  return rows;
}

}  // namespace pbserve::engine
