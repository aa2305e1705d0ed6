// Small random models in the Hugging Face layout, written where a test wants them.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace pbserve::test {

// A safetensors file from named tensors.
struct TensorFile {
  struct Entry {
    std::string dtype;  // "F32", "BF16"
    std::vector<int64_t> shape;
    std::string bytes;
  };
  std::map<std::string, Entry> tensors;

  // Values are rounded to bfloat16 where the dtype is BF16.
  void add(const std::string& name, const std::string& dtype, std::vector<int64_t> shape,
           const std::vector<float>& values);
  std::string image() const;
};

// Any byte string and the markers below have ids: the tokenizer has one token per byte and no
// merge.
struct TinyModelOptions {
  std::string architecture = "LlamaForCausalLM";
  int64_t num_layers = 2;
  int64_t hidden_size = 64;
  int64_t intermediate_size = 96;
  int64_t num_q_heads = 2;
  int64_t num_kv_heads = 1;
  int64_t head_dim = 64;
  int64_t max_position = 4096;
  bool tied_embeddings = false;
  std::string dtype = "BF16";
  uint64_t seed = 1;
  nlohmann::json config_patch = nlohmann::json::object();  // merged into config.json last
};

inline constexpr int32_t kTinyEndOfText = 0;  // "<|endoftext|>", ends a generation
inline constexpr int32_t kTinyTurnBegin = 1;  // "<|im_start|>"
inline constexpr int32_t kTinyTurnEnd = 2;    // "<|im_end|>", ends a generation
inline constexpr int32_t kTinyFirstByte = 3;  // the byte b has id 3 + b
inline constexpr int64_t kTinyVocabSize = 264;

// config.json, model.safetensors, tokenizer.json, tokenizer_config.json, generation_config.json.
void write_tiny_model(const std::string& folder, const TinyModelOptions& options);

// The parts, for tests that break one of them.
nlohmann::json tiny_config(const TinyModelOptions& options);
TensorFile tiny_weights(const TinyModelOptions& options);
nlohmann::json tiny_tokenizer();

}  // namespace pbserve::test
