#include "tests/support/tiny_model.h"

#include <cmath>
#include <cstring>
#include <fstream>
#include <random>

#include "kernels/core/check.h"
#include "kernels/core/dtype.h"

namespace pbserve::test {

using kernels::BF16;
using nlohmann::json;

void TensorFile::add(const std::string& name, const std::string& dtype, std::vector<int64_t> shape,
                     const std::vector<float>& values) {
  Entry entry{.dtype = dtype, .shape = std::move(shape), .bytes = {}};
  const auto append = [&](const auto& value) {
    entry.bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
  };
  for (float value : values) {
    if (dtype == "BF16") {
      append(kernels::from_f32<BF16>(value));
    } else {
      check(dtype == "F32", "a test's tensor is F32 or BF16");
      append(value);
    }
  }
  tensors[name] = std::move(entry);
}

std::string TensorFile::image() const {
  json header = json::object();
  std::string data;
  for (const auto& [name, entry] : tensors) {
    header[name] = {{"dtype", entry.dtype},
                    {"shape", entry.shape},
                    {"data_offsets", {data.size(), data.size() + entry.bytes.size()}}};
    data += entry.bytes;
  }
  const std::string text = header.dump();
  const uint64_t length = text.size();
  std::string image(sizeof(length), '\0');
  std::memcpy(image.data(), &length, sizeof(length));
  return image + text + data;
}

json tiny_config(const TinyModelOptions& options) {
  json config = {{"architectures", {options.architecture}},
                 {"vocab_size", kTinyVocabSize},
                 {"hidden_size", options.hidden_size},
                 {"intermediate_size", options.intermediate_size},
                 {"num_hidden_layers", options.num_layers},
                 {"num_attention_heads", options.num_q_heads},
                 {"num_key_value_heads", options.num_kv_heads},
                 {"head_dim", options.head_dim},
                 {"hidden_act", "silu"},
                 {"max_position_embeddings", options.max_position},
                 {"rms_norm_eps", 1e-5},
                 {"rope_theta", 10000.0},
                 {"tie_word_embeddings", options.tied_embeddings},
                 {"eos_token_id", kTinyEndOfText}};
  config.merge_patch(options.config_patch);
  return config;
}

namespace {

// Normal values loud enough that attention, norms and biases all matter.
class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}

  std::vector<float> normal(int64_t count, double mean, double deviation) {
    std::normal_distribution<double> distribution(mean, deviation);
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = static_cast<float>(distribution(engine_));
    return values;
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace

TensorFile tiny_weights(const TinyModelOptions& options) {
  Random random(options.seed);
  TensorFile file;
  const auto matrix = [&](const std::string& name, int64_t rows, int64_t cols) {
    const double deviation = 1.5 / std::sqrt(static_cast<double>(cols));
    file.add(name, options.dtype, {rows, cols}, random.normal(rows * cols, 0.0, deviation));
  };
  const auto vector = [&](const std::string& name, int64_t size, double mean) {
    file.add(name, options.dtype, {size}, random.normal(size, mean, 0.2));
  };
  const int64_t hidden = options.hidden_size;
  const int64_t ffn = options.intermediate_size;
  file.add("model.embed_tokens.weight", options.dtype, {kTinyVocabSize, hidden},
           random.normal(kTinyVocabSize * hidden, 0.0, 1.0));
  if (!options.tied_embeddings) matrix("lm_head.weight", kTinyVocabSize, hidden);
  vector("model.norm.weight", hidden, 1.0);
  for (int64_t i = 0; i < options.num_layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    vector(layer + "input_layernorm.weight", hidden, 1.0);
    for (const char* part : {"q", "k", "v"}) {
      const bool is_query = *part == 'q';
      const int64_t size =
          (is_query ? options.num_q_heads : options.num_kv_heads) * options.head_dim;
      const std::string name = layer + "self_attn." + part;
      matrix(name + "_proj.weight", size, hidden);
      if (options.architecture == "Qwen2ForCausalLM") vector(name + "_proj.bias", size, 0.0);
      if (options.architecture == "Qwen3ForCausalLM" && *part != 'v') {
        vector(name + "_norm.weight", options.head_dim, 1.0);
      }
    }
    matrix(layer + "self_attn.o_proj.weight", hidden, options.num_q_heads * options.head_dim);
    vector(layer + "post_attention_layernorm.weight", hidden, 1.0);
    matrix(layer + "mlp.gate_proj.weight", ffn, hidden);
    matrix(layer + "mlp.up_proj.weight", ffn, hidden);
    matrix(layer + "mlp.down_proj.weight", hidden, ffn);
  }
  return file;
}

namespace {

// GPT-2's printable stand-in for a byte: itself where it is printable Latin-1, else U+0100 onwards.
std::string byte_letter(int byte) {
  const auto printable = [](int b) {
    return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
  };
  int code = byte;
  if (!printable(byte)) {
    code = 0x100;
    for (int b = 0; b < byte; ++b) code += printable(b) ? 0 : 1;
  }
  if (code < 0x80) return {static_cast<char>(code)};
  return {static_cast<char>(0xc0 | code >> 6), static_cast<char>(0x80 | (code & 0x3f))};
}

json added_token(const char* text, int32_t id) {
  return {{"id", id},        {"content", text},     {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

constexpr const char* kChatTemplate =
    "{%- for message in messages %}{{- '<|im_start|>' + message['role'] + '\\n' + "
    "message['content'] + '<|im_end|>' + '\\n' }}{%- endfor %}{%- if add_generation_prompt %}"
    "{{- '<|im_start|>assistant\\n' }}{%- endif %}";

void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary);
  file << bytes;
  file.close();
  check(file.good(), "cannot write a tiny model's file");
}

}  // namespace

json tiny_tokenizer() {
  json vocabulary = {{"<|endoftext|>", kTinyEndOfText},
                     {"<|im_start|>", kTinyTurnBegin},
                     {"<|im_end|>", kTinyTurnEnd}};
  for (int byte = 0; byte < 256; ++byte) vocabulary[byte_letter(byte)] = kTinyFirstByte + byte;
  const json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", true},
                           {"use_regex", true}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens",
           {added_token("<|endoftext|>", kTinyEndOfText),
            added_token("<|im_start|>", kTinyTurnBegin), added_token("<|im_end|>", kTinyTurnEnd)}},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", nullptr},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", vocabulary},
            {"merges", json::array()}}}};
}

void write_tiny_model(const std::string& folder, const TinyModelOptions& options) {
  write_file(folder + "/config.json", tiny_config(options).dump(1));
  write_file(folder + "/model.safetensors", tiny_weights(options).image());
  write_file(folder + "/tokenizer.json", tiny_tokenizer().dump(1));
  const json tokenizer_config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                                 {"bos_token", nullptr},
                                 {"eos_token", "<|im_end|>"},
                                 {"chat_template", kChatTemplate}};
  write_file(folder + "/tokenizer_config.json", tokenizer_config.dump(1));
  const json generation = {{"eos_token_id", {kTinyEndOfText, kTinyTurnEnd}}, {"do_sample", false}};
  write_file(folder + "/generation_config.json", generation.dump(1));
}

}  // namespace pbserve::test
