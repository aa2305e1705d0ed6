// PBS prefill of one job in double, step by step and as slow as it is plain: the oracle of the
// pbs_* operations. Each step takes the results of the one before, so a test can compare one step
// on the kernel's own input.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/ops/pbs.h"
#include "tests/reference/attention_ref.h"

namespace pbserve::reference {

using Order = std::vector<std::vector<int64_t>>;     // [Hkv][place]: absolute position
using KeyScores = std::vector<std::vector<double>>;  // [Hkv][key of the job's segments]
struct Moments {
  std::vector<double> mean, var;  // [D]
};
using BlockMoments = std::vector<std::vector<Moments>>;         // [Hkv][block of a whole segment]
using Weights = std::vector<std::vector<std::vector<double>>>;  // [Hq][query block][candidate]
using Taken = std::vector<std::vector<std::vector<bool>>>;      // [Hq][query block][candidate]

struct PbsProblem {
  Heads q;  // the job's queries: row i stands at job.begin + i
  Heads k;  // [job.end, Hkv, D], natural
  Heads v;  // [job.end, Hkv, D], natural
  kernels::PbsJob job;
  kernels::PbsParams params;
  double scale = 1;
  Order earlier;  // of the keys before the job: places [0, job.begin)

  int64_t group() const { return q.num_heads / k.num_heads; }
  int64_t num_query_blocks() const { return job.num_blocks(); }
  // Keys of the job that stand in complete segments: they are scored and permuted.
  int64_t num_ordered() const { return job.end / params.segment * params.segment - job.begin; }
  int64_t num_complete_blocks() const { return (job.begin + num_ordered()) / kernels::kPbsBlock; }
  // Permuted blocks of the segments before the one query block `block` of the job lies in.
  int64_t num_candidates(int64_t block) const;
  int64_t prompt_block(int64_t block) const { return job.begin / kernels::kPbsBlock + block; }
  bool is_dense_tail(int64_t block) const;
};

KeyScores key_scores_ref(const PbsProblem& problem);
// Of all keys [0, job.begin + num_ordered): the earlier ones, then the job's own.
Order order_ref(const PbsProblem& problem, const KeyScores& scores);

// Of the keys of a permuted block, as the pages hold them: each rounded once to `dtype`.
Moments moments_ref(const PbsProblem& problem, const Order& order, int64_t kv_head, int64_t block,
                    kernels::DType dtype);
BlockMoments block_moments_ref(const PbsProblem& problem, const Order& order, kernels::DType dtype);

Weights weights_ref(const PbsProblem& problem, const Order& order, const BlockMoments& moments);
// Scorer mass: the largest second-order term of the query block's sampled rows.
double second_order_max_ref(const PbsProblem& problem, const BlockMoments& moments, int64_t head,
                            int64_t block);

// Candidates [0, count) that are taken whatever they weigh.
std::vector<bool> always_taken_ref(const kernels::PbsParams& params, int64_t count);
// The choice among one query block's candidates outside of the dense tail.
std::vector<bool> choose_ref(const std::vector<double>& weights, const kernels::PbsParams& params);
Taken select_ref(const PbsProblem& problem, const Weights& weights);

// The positions that row `row` of the job attends to, and the attention over them.
std::vector<int64_t> attended_ref(const PbsProblem& problem, const Order& order, const Taken& taken,
                                  int64_t head, int64_t row);
std::vector<double> pbs_row_ref(const PbsProblem& problem, const Order& order, const Taken& taken,
                                int64_t head, int64_t row);
// The share of the row's dense attention mass that falls on those positions.
double coverage_ref(const PbsProblem& problem, const Order& order, const Taken& taken, int64_t head,
                    int64_t row);

}  // namespace pbserve::reference
