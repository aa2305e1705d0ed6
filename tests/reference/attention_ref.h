// Causal attention in double, one query and one head at a time: the oracle of the dense kernels.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace pbserve::reference {

// [T, H, D] in double.
struct Heads {
  Heads() = default;
  Heads(int64_t tokens, int64_t heads, int64_t dim)
      : num_tokens(tokens), num_heads(heads), head_dim(dim), data(tokens * heads * dim) {}

  std::span<double> at(int64_t token, int64_t head) {
    return {data.data() + (token * num_heads + head) * head_dim, static_cast<size_t>(head_dim)};
  }
  std::span<const double> at(int64_t token, int64_t head) const {
    return {data.data() + (token * num_heads + head) * head_dim, static_cast<size_t>(head_dim)};
  }

  int64_t num_tokens = 0;
  int64_t num_heads = 0;
  int64_t head_dim = 0;
  std::vector<double> data;
};

double dot(std::span<const double> a, std::span<const double> b);

// In place: exp(x - max) / sum.
void softmax(std::vector<double>& logits);

// softmax(scale q . k) v of one query over the keys at `positions`, all of key head `kv_head`.
std::vector<double> attend_ref(std::span<const double> q, const Heads& k, const Heads& v,
                               int64_t kv_head, std::span<const int64_t> positions, double scale);

// Query row i stands at `first_position + i` and sees the keys [0, first_position + i]. [T, Hq, D]
Heads attention_ref(const Heads& q, const Heads& k, const Heads& v, int64_t first_position,
                    double scale);

}  // namespace pbserve::reference
