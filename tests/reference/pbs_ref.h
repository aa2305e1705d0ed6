// PBS prefill of one span in double, step by step and as slow as it is plain: the oracle of the
// pbs_* operations. Each step takes the results of the one before, so a test can compare one step
// on the kernel's own input.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/ops/pbs.h"
#include "tests/reference/attention_ref.h"

namespace pbserve::reference {

struct PbsProblem {
  Heads q;            // the span's queries: row i stands at begin + i
  Heads k;            // [e, Hkv, D]
  Heads v;            // [e, Hkv, D]
  int64_t begin = 0;  // s
  kernels::PbsParams params;
  double scale = 1;

  int64_t end() const { return begin + q.num_tokens; }
  int64_t group() const { return q.num_heads / k.num_heads; }
  int64_t num_query_blocks() const;
  // Keys of complete segments: the ones that are scored and permuted.
  int64_t num_ordered() const { return end() / params.segment * params.segment; }
  // Permuted blocks of the segments before the one query block `block` of the span lies in.
  int64_t num_candidates(int64_t block) const;
};

using KeyScores = std::vector<std::vector<double>>;             // [Hkv][num_ordered]
using Order = std::vector<std::vector<int64_t>>;                // [Hkv][place]: absolute position
using Weights = std::vector<std::vector<std::vector<double>>>;  // [Hq][query block][candidate]
using Taken = std::vector<std::vector<std::vector<bool>>>;      // [Hq][query block][candidate]

KeyScores key_scores_ref(const PbsProblem& problem);
Order order_ref(const PbsProblem& problem, const KeyScores& scores);
Weights weights_ref(const PbsProblem& problem, const Order& order);

// The selector's choice among one query block's candidates, token 0's block aside.
std::vector<bool> choose_ref(const std::vector<double>& weights, kernels::PbsSelector selector,
                             double threshold);
Taken select_ref(const PbsProblem& problem, const Order& order, const Weights& weights);

// The positions that query `row` of the span attends to, and the attention over them.
std::vector<int64_t> attended_ref(const PbsProblem& problem, const Order& order, const Taken& taken,
                                  int64_t head, int64_t row);
std::vector<double> pbs_row_ref(const PbsProblem& problem, const Order& order, const Taken& taken,
                                int64_t head, int64_t row);

}  // namespace pbserve::reference
