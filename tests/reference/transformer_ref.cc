#include "tests/reference/transformer_ref.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/check.h"
#include "models/checkpoint.h"
#include "models/rope_scaling.h"
#include "models/weight_source.h"

namespace pbserve::reference {

using models::ModelConfig;
using Vector = std::vector<double>;

namespace {

// y [T, N] = x [T, K] w^T [K, N] (+ bias).
Vector linear(const Vector& x, const Vector& weight, const Vector* bias, size_t num_rows) {
  const size_t depth = x.size() / num_rows;
  const size_t width = weight.size() / depth;
  Vector y(num_rows * width);
  for (size_t t = 0; t < num_rows; ++t) {
    for (size_t n = 0; n < width; ++n) {
      double sum = bias == nullptr ? 0.0 : (*bias)[n];
      for (size_t k = 0; k < depth; ++k) sum += x[t * depth + k] * weight[n * depth + k];
      y[t * width + n] = sum;
    }
  }
  return y;
}

// Every row of weight.size() values: x / sqrt(mean(x^2) + eps) * weight.
Vector rms_norm(const Vector& x, const Vector& weight, double eps) {
  const size_t width = weight.size();
  Vector y(x.size());
  for (size_t row = 0; row < x.size(); row += width) {
    double squares = 0.0;
    for (size_t i = 0; i < width; ++i) squares += x[row + i] * x[row + i];
    const double scale = 1.0 / std::sqrt(squares / static_cast<double>(width) + eps);
    for (size_t i = 0; i < width; ++i) y[row + i] = x[row + i] * scale * weight[i];
  }
  return y;
}

// Rotates the pairs (i, i + D/2) of every head of x [T, H, D] by position * frequency.
void rotate(Vector& x, size_t num_rows, size_t head_dim, const models::RopeTable& table) {
  const size_t num_heads = x.size() / num_rows / head_dim;
  const size_t half = head_dim / 2;
  for (size_t t = 0; t < num_rows; ++t) {
    for (size_t h = 0; h < num_heads; ++h) {
      double* head = x.data() + (t * num_heads + h) * head_dim;
      for (size_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(t) * static_cast<double>(table.inv_freq[i]);
        const double cosine = std::cos(angle) * static_cast<double>(table.scale);
        const double sine = std::sin(angle) * static_cast<double>(table.scale);
        const double first = head[i], second = head[i + half];
        head[i] = first * cosine - second * sine;
        head[i + half] = second * cosine + first * sine;
      }
    }
  }
}

// One row of one head: softmax(q . k / sqrt(D)) v over the rows [0, t].
void attend(const double* q, const Vector& k, const Vector& v, size_t t, size_t offset,
            size_t stride, size_t head_dim, double* out) {
  Vector weights(t + 1);
  for (size_t s = 0; s <= t; ++s) {
    for (size_t d = 0; d < head_dim; ++d) weights[s] += q[d] * k[s * stride + offset + d];
    weights[s] /= std::sqrt(static_cast<double>(head_dim));
  }
  const double largest = *std::max_element(weights.begin(), weights.end());
  double sum = 0.0;
  for (double& weight : weights) sum += weight = std::exp(weight - largest);
  for (size_t s = 0; s <= t; ++s) {
    for (size_t d = 0; d < head_dim; ++d) {
      out[d] += weights[s] / sum * v[s * stride + offset + d];
    }
  }
}

class Network {
 public:
  Network(const ModelConfig& config, const WeightMap& weights, std::span<const int32_t> ids)
      : config_(config),
        weights_(weights),
        rows_(ids.size()),
        head_dim_(static_cast<size_t>(config.head_dim)),
        table_(models::make_rope_table(config.rope, config.head_dim)) {
    const auto width = static_cast<size_t>(config.hidden_size);
    const Vector& table = weight("model.embed_tokens.weight");
    for (int32_t id : ids) {
      const auto row = table.begin() + static_cast<int64_t>(static_cast<size_t>(id) * width);
      hidden_.insert(hidden_.end(), row, row + static_cast<int64_t>(width));
    }
  }

  void run_layer(int64_t layer) {
    const std::string name = "model.layers." + std::to_string(layer) + ".";
    add(attention(name + "self_attn.", norm(name + "input_layernorm.weight")));
    add(mlp(name + "mlp.", norm(name + "post_attention_layernorm.weight")));
  }

  Vector logits() const {
    const char* head = config_.tied_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
    return linear(norm("model.norm.weight"), weight(head), nullptr, rows_);
  }

 private:
  const Vector& weight(const std::string& name) const { return weights_.at(name); }
  Vector norm(const std::string& name) const {
    return rms_norm(hidden_, weight(name), static_cast<double>(config_.norm_eps));
  }
  void add(const Vector& delta) {
    for (size_t i = 0; i < hidden_.size(); ++i) hidden_[i] += delta[i];
  }

  // q, k or v [T, heads, D]; q and k normed (where the model does) and rotated.
  Vector heads(const std::string& name, const char* part, const Vector& x) const {
    const Vector* bias = config_.qkv_bias ? &weight(name + part + "_proj.bias") : nullptr;
    Vector y = linear(x, weight(name + part + "_proj.weight"), bias, rows_);
    if (*part == 'v') return y;
    if (config_.qk_norm) {
      y = rms_norm(y, weight(name + part + "_norm.weight"), static_cast<double>(config_.norm_eps));
    }
    rotate(y, rows_, head_dim_, table_);
    return y;
  }

  Vector attention(const std::string& name, const Vector& x) const {
    const Vector q = heads(name, "q", x), k = heads(name, "k", x), v = heads(name, "v", x);
    const size_t q_stride = q.size() / rows_, kv_stride = k.size() / rows_;
    const size_t group = q_stride / kv_stride;  // query heads per key head
    Vector out(q.size());
    for (size_t t = 0; t < rows_; ++t) {
      for (size_t head = 0; head < q_stride / head_dim_; ++head) {
        const size_t at = t * q_stride + head * head_dim_;
        attend(&q[at], k, v, t, head / group * head_dim_, kv_stride, head_dim_, &out[at]);
      }
    }
    return linear(out, weight(name + "o_proj.weight"), nullptr, rows_);
  }

  Vector mlp(const std::string& name, const Vector& x) const {
    Vector gate = linear(x, weight(name + "gate_proj.weight"), nullptr, rows_);
    const Vector up = linear(x, weight(name + "up_proj.weight"), nullptr, rows_);
    for (size_t i = 0; i < gate.size(); ++i) gate[i] *= up[i] / (1.0 + std::exp(-gate[i]));
    return linear(gate, weight(name + "down_proj.weight"), nullptr, rows_);
  }

  const ModelConfig& config_;
  const WeightMap& weights_;
  size_t rows_;
  size_t head_dim_;
  models::RopeTable table_;
  Vector hidden_;  // [T, C]
};

}  // namespace

WeightMap load_weights(const std::string& folder) {
  absl::StatusOr<models::Checkpoint> checkpoint = models::Checkpoint::open(folder);
  check(checkpoint.ok(), checkpoint.status().ToString());
  std::map<std::string, int64_t> sizes;
  for (const auto& [name, tensor] : checkpoint->tensors()) {
    int64_t numel = 1;
    for (int64_t size : tensor.shape) numel *= size;
    sizes[name] = numel;
  }
  const models::CheckpointSource source(*std::move(checkpoint), {.tied_embeddings = false});
  WeightMap weights;
  for (const auto& [name, numel] : sizes) {
    std::vector<float> values(static_cast<size_t>(numel));
    source.read(name, 0, numel, kernels::DType::kF32, values.data());
    weights[name].assign(values.begin(), values.end());
  }
  return weights;
}

std::vector<double> transformer_logits(const ModelConfig& config, const WeightMap& weights,
                                       std::span<const int32_t> ids) {
  Network network(config, weights, ids);
  for (int64_t layer = 0; layer < config.num_layers; ++layer) network.run_layer(layer);
  return network.logits();
}

std::vector<int32_t> greedy_tokens(const ModelConfig& config, const WeightMap& weights,
                                   std::vector<int32_t> prompt, int count) {
  const size_t prompt_len = prompt.size();
  for (int i = 0; i < count; ++i) {
    const Vector logits = transformer_logits(config, weights, prompt);
    const auto last = logits.end() - config.vocab_size;
    prompt.push_back(static_cast<int32_t>(std::max_element(last, logits.end()) - last));
  }
  return {prompt.begin() + static_cast<int64_t>(prompt_len), prompt.end()};
}

}  // namespace pbserve::reference
