// config.json: what is read, and what is refused with a message that names the key.
#include "models/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace pbserve::models {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

// A Llama's config.json with a patch laid over it; null in the patch removes a key.
absl::StatusOr<ModelConfig> parse(const json& patch, const std::string& overrides = "") {
  const json config = test::tiny_config({.config_patch = patch});
  return parse_model_config(config.dump(), overrides, "config.json");
}

ModelConfig parse_ok(const json& patch, const std::string& overrides = "") {
  absl::StatusOr<ModelConfig> config = parse(patch, overrides);
  EXPECT_TRUE(config.ok()) << config.status();
  return config.value_or(ModelConfig{});
}

json qwen(const char* architecture, const json& patch = json::object()) {
  json config = patch;
  config["architectures"] = {architecture};
  return config;
}

TEST(Config, ReadsALlama) {
  const ModelConfig config = parse_ok({{"num_key_value_heads", 2},
                                       {"num_attention_heads", 4},
                                       {"head_dim", 96},
                                       {"rms_norm_eps", 1e-6},
                                       {"tie_word_embeddings", true}});
  EXPECT_EQ(config.architecture, "LlamaForCausalLM");
  EXPECT_EQ(config.vocab_size, test::kTinyVocabSize);
  EXPECT_EQ(config.hidden_size, 64);
  EXPECT_EQ(config.intermediate_size, 96);
  EXPECT_EQ(config.num_layers, 2);
  EXPECT_EQ(config.num_q_heads, 4);
  EXPECT_EQ(config.num_kv_heads, 2);
  EXPECT_EQ(config.head_dim, 96);
  EXPECT_EQ(config.max_position, 4096);
  EXPECT_FLOAT_EQ(config.norm_eps, 1e-6f);
  EXPECT_TRUE(config.tied_embeddings);
  EXPECT_FALSE(config.qkv_bias);
  EXPECT_FALSE(config.qk_norm);
  EXPECT_EQ(config.rope.type, RopeType::kDefault);
  EXPECT_EQ(config.rope.theta, 10000.0);
}

// As the folders on the hub have them.
constexpr const char* kLlama31 = R"({"architectures": ["LlamaForCausalLM"], "attention_bias": false,
  "attention_dropout": 0.0, "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009],
  "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
  "intermediate_size": 14336, "max_position_embeddings": 131072, "mlp_bias": false,
  "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32,
  "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": {
  "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
  "original_max_position_embeddings": 8192, "rope_type": "llama3"}, "rope_theta": 500000.0,
  "tie_word_embeddings": false, "torch_dtype": "bfloat16", "transformers_version": "4.42.3",
  "use_cache": true, "vocab_size": 128256})";
constexpr const char* kQwen25Million = R"({"architectures": ["Qwen2ForCausalLM"],
  "attention_dropout": 0.0, "bos_token_id": 151643, "dual_chunk_attention_config": {
  "chunk_size": 262144, "local_size": 8192, "original_max_position_embeddings": 262144},
  "eos_token_id": 151645, "hidden_act": "silu", "hidden_size": 3584, "initializer_range": 0.02,
  "intermediate_size": 18944, "max_position_embeddings": 1010000, "max_window_layers": 28,
  "model_type": "qwen2", "num_attention_heads": 28, "num_hidden_layers": 28,
  "num_key_value_heads": 4, "rms_norm_eps": 1e-05, "rope_theta": 10000000.0,
  "sliding_window": 32768, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
  "transformers_version": "4.43.1", "use_cache": true, "use_sliding_window": false,
  "vocab_size": 152064})";
constexpr const char* kQwen3 = R"({"architectures": ["Qwen3ForCausalLM"], "attention_bias": false,
  "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128,
  "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
  "intermediate_size": 12288, "max_position_embeddings": 40960, "max_window_layers": 36,
  "model_type": "qwen3", "num_attention_heads": 32, "num_hidden_layers": 36,
  "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000,
  "sliding_window": null, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
  "transformers_version": "4.51.0", "use_cache": true, "use_sliding_window": false,
  "vocab_size": 151936})";
constexpr const char* kSmolLm2 = R"({"architectures": ["LlamaForCausalLM"],
  "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
  "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.041666666666666664,
  "intermediate_size": 1536, "is_llama_config": true, "max_position_embeddings": 8192,
  "mlp_bias": false, "model_type": "llama", "num_attention_heads": 9, "num_hidden_layers": 30,
  "num_key_value_heads": 3, "pad_token_id": 2, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
  "rope_interleaved": false, "rope_scaling": null, "rope_theta": 100000,
  "tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers.js_config": {
  "kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}}, "transformers_version": "4.42.3",
  "use_cache": true, "vocab_size": 49152})";

TEST(Config, ReadsRealFolders) {
  const auto llama = parse_model_config(kLlama31, "", "config.json");
  ASSERT_TRUE(llama.ok()) << llama.status();
  EXPECT_EQ(llama->head_dim, 128);
  EXPECT_EQ(llama->max_position, 131072);
  const auto qwen3 = parse_model_config(kQwen3, "", "config.json");
  ASSERT_TRUE(qwen3.ok()) << qwen3.status();
  EXPECT_EQ(qwen3->rope.theta, 1e6);
  const auto wide = parse_model_config(
      kQwen3, R"({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0,
                  "original_max_position_embeddings": 32768}})",
      "config.json");
  ASSERT_TRUE(wide.ok()) << wide.status();
  EXPECT_EQ(wide->max_position, 131072);
  const auto million =
      parse_model_config(kQwen25Million, R"({"dual_chunk_attention_config": null})", "config.json");
  ASSERT_TRUE(million.ok()) << million.status();
  EXPECT_EQ(million->max_position, 1010000);
  EXPECT_FALSE(parse_model_config(kQwen25Million, "", "config.json").ok());
  const auto smol = parse_model_config(kSmolLm2, "", "config.json");
  ASSERT_TRUE(smol.ok()) << smol.status();
  EXPECT_EQ(smol->head_dim, 64);
  const auto demo = load_model_config(PBSERVE_SOURCE_DIR "/models/demo", "");
  ASSERT_TRUE(demo.ok()) << demo.status();
  EXPECT_EQ(demo->num_layers, 8);
}

TEST(Config, HeadSizeFollowsFromTheHiddenSizeWhereItIsAbsent) {
  EXPECT_EQ(parse_ok({{"head_dim", nullptr}, {"hidden_size", 256}}).head_dim, 128);
  EXPECT_EQ(
      parse_ok(qwen("Qwen2ForCausalLM", {{"head_dim", nullptr}, {"hidden_size", 256}})).head_dim,
      128);
  EXPECT_EQ(parse_ok(qwen("Qwen3ForCausalLM", {{"head_dim", nullptr}})).head_dim, 128);
}

TEST(Config, FamiliesDifferInBiasAndNorm) {
  const ModelConfig qwen2 = parse_ok(qwen("Qwen2ForCausalLM"));
  EXPECT_TRUE(qwen2.qkv_bias);
  EXPECT_FALSE(qwen2.qk_norm);
  const ModelConfig qwen3 = parse_ok(qwen("Qwen3ForCausalLM"));
  EXPECT_FALSE(qwen3.qkv_bias);
  EXPECT_TRUE(qwen3.qk_norm);
}

TEST(Config, ASlidingWindowThatIsOffIsFine) {
  const json off = {{"sliding_window", 4096}, {"use_sliding_window", false}};
  EXPECT_TRUE(parse(qwen("Qwen2ForCausalLM", off)).ok());
  EXPECT_TRUE(parse(qwen("Qwen2ForCausalLM", {{"sliding_window", 4096}})).ok());
  EXPECT_TRUE(parse(off).ok());
  EXPECT_TRUE(parse({{"layer_types", {"full_attention", "full_attention"}}}).ok());
}

TEST(Config, ReadsBothSpellingsOfRope) {
  const json llama3 = {{"rope_type", "llama3"},
                       {"factor", 8},
                       {"low_freq_factor", 1},
                       {"high_freq_factor", 4},
                       {"original_max_position_embeddings", 8192}};
  json inside = llama3;
  inside["rope_theta"] = 5e5;
  for (const json& patch : {json{{"rope_theta", 5e5}, {"rope_scaling", llama3}},
                            json{{"rope_theta", nullptr}, {"rope_parameters", inside}}}) {
    const RopeConfig rope = parse_ok(patch).rope;
    EXPECT_EQ(rope.type, RopeType::kLlama3);
    EXPECT_EQ(rope.theta, 5e5);
    EXPECT_EQ(rope.factor, 8.0);
    EXPECT_EQ(rope.low_freq_factor, 1.0);
    EXPECT_EQ(rope.high_freq_factor, 4.0);
    EXPECT_EQ(rope.original_max_position, 8192);
  }
}

// As `transformers` 5 saves a Llama 3.2 and a Qwen 3; what 4.57 saves of the same comes after it.
TEST(Config, ReadsWhatBothVersionsOfTransformersSave) {
  const json llama3 = {{"factor", 32.0},
                       {"high_freq_factor", 4.0},
                       {"low_freq_factor", 1.0},
                       {"original_max_position_embeddings", 8192},
                       {"rope_type", "llama3"}};
  json llama3_with_theta = llama3;
  llama3_with_theta["rope_theta"] = 5e5;
  const json llama_5 = {{"dtype", "bfloat16"},
                        {"pad_token_id", nullptr},
                        {"rope_theta", nullptr},
                        {"rope_parameters", llama3_with_theta}};
  const json llama_4 = {{"dtype", "bfloat16"}, {"rope_theta", 5e5}, {"rope_scaling", llama3}};
  for (const json& patch : {llama_5, llama_4}) {
    const ModelConfig config = parse_ok(patch);
    EXPECT_EQ(config.rope.type, RopeType::kLlama3);
    EXPECT_EQ(config.rope.theta, 5e5);
    EXPECT_EQ(config.rope.factor, 32.0);
    EXPECT_EQ(config.rope.original_max_position, 8192);
  }
  const json qwen_5 = {{"bos_token_id", nullptr},
                       {"layer_types", {"full_attention", "full_attention"}},
                       {"max_window_layers", 28},
                       {"rope_theta", nullptr},
                       {"rope_parameters", {{"rope_theta", 1e6}, {"rope_type", "default"}}},
                       {"sliding_window", nullptr},
                       {"use_sliding_window", false}};
  const json qwen_4 = {{"layer_types", {"full_attention", "full_attention"}},
                       {"rope_theta", 1e6},
                       {"rope_scaling", nullptr},
                       {"use_sliding_window", false}};
  for (const json& patch : {qwen_5, qwen_4}) {
    const ModelConfig config = parse_ok(qwen("Qwen3ForCausalLM", patch));
    EXPECT_EQ(config.rope.type, RopeType::kDefault);
    EXPECT_EQ(config.rope.theta, 1e6);
  }
}

TEST(Config, YarnWidensTheContext) {
  const ModelConfig config = parse_ok({{"rope_scaling", {{"type", "yarn"}, {"factor", 4.0}}}});
  EXPECT_EQ(config.rope.type, RopeType::kYarn);
  EXPECT_EQ(config.rope.original_max_position, 4096);
  EXPECT_EQ(config.max_position, 16384);
  EXPECT_TRUE(config.rope.truncate);
  EXPECT_FALSE(config.rope.attention_factor.has_value());
}

TEST(Config, OverridesAreMergedInAndNullRemoves) {
  const json unsupported = {{"dual_chunk_attention_config", {{"chunk_size", 262144}}}};
  EXPECT_FALSE(parse(unsupported).ok());
  EXPECT_TRUE(parse(unsupported, R"({"dual_chunk_attention_config": null})").ok());
  const ModelConfig config =
      parse_ok({{"rope_scaling", {{"type", "linear"}, {"factor", 2.0}}}},
               R"({"max_position_embeddings": 99, "rope_scaling": {"factor": 3.0}})");
  EXPECT_EQ(config.max_position, 99);
  EXPECT_EQ(config.rope.factor, 3.0);
  EXPECT_THAT(parse({}, "[1]").status().message(),
              HasSubstr("--hf-overrides: expected a JSON obj"));
  EXPECT_THAT(parse({}, "{").status().message(), HasSubstr("--hf-overrides: not valid JSON"));
}

struct Refusal {
  json patch;
  const char* message;
};

class ConfigRefuses : public ::testing::TestWithParam<Refusal> {};

TEST_P(ConfigRefuses, ByName) {
  const absl::StatusOr<ModelConfig> config = parse(GetParam().patch);
  ASSERT_FALSE(config.ok()) << GetParam().patch;
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(config.status().message(), HasSubstr(GetParam().message)) << GetParam().patch;
}

json rope(const json& object) { return {{"rope_scaling", object}}; }

INSTANTIATE_TEST_SUITE_P(
    Arithmetic, ConfigRefuses,
    ::testing::Values(
        Refusal{{{"architectures", {"MixtralForCausalLM"}}}, "'MixtralForCausalLM', which is not"},
        Refusal{{{"architectures", json::array()}}, "'architectures' is not a list of one name"},
        Refusal{{{"architectures", nullptr}}, "'architectures' is not a list of one name"},
        Refusal{{{"hidden_act", "gelu"}}, "'hidden_act' is \"gelu\", expected \"silu\""},
        Refusal{{{"attention_bias", true}}, "'attention_bias' is true, expected false"},
        Refusal{{{"mlp_bias", true}}, "'mlp_bias' is true"},
        Refusal{{{"pretraining_tp", 2}}, "'pretraining_tp' is 2, expected 1"},
        Refusal{{{"partial_rotary_factor", 0.5}}, "'partial_rotary_factor' is 0.5"},
        Refusal{{{"quantization_config", {{"quant_method", "fp8"}}}}, "'quantization_config'"},
        Refusal{{{"dual_chunk_attention_config", {{"chunk_size", 1}}}},
                "--hf-overrides '{\"dual_chunk_attention_config\": null}'"},
        Refusal{{{"sliding_window", 4096}}, "'sliding_window' asks for sliding-window attention"},
        Refusal{{{"use_sliding_window", true}}, "'use_sliding_window' asks for sliding-window"},
        Refusal{{{"layer_types", {"full_attention", "sliding_attention"}}},
                "\"sliding_attention\""},
        Refusal{{{"layer_types", {"full_attention"}}}, "'layer_types' is not a list of 2 names"},
        Refusal{{{"embedding_multiplier", 12.0}},
                "drop it with --hf-overrides '{\"embedding_mult"}));

INSTANTIATE_TEST_SUITE_P(
    Rope, ConfigRefuses,
    ::testing::Values(
        Refusal{rope({{"rope_type", "longrope"}, {"factor", 4}}), "'rope_type' is 'longrope'"},
        Refusal{rope({{"type", "dynamic"}, {"factor", 4}}), "'rope_type' is 'dynamic'"},
        Refusal{rope({{"type", "linear"}, {"rope_type", "yarn"}, {"factor", 4}}), "contradicts"},
        Refusal{rope({{"type", "linear"}}), "rope_scaling: 'factor' is missing"},
        Refusal{rope({{"type", "linear"}, {"factor", 0.5}}), "'factor' is 0.5"},
        Refusal{rope({{"type", "linear"}, {"factor", 2}, {"mrope_section", {1}}}),
                "'mrope_section'"},
        Refusal{rope({{"rope_theta", 5e5}}), "contradicts the outer 10000"},
        Refusal{rope({{"type", "default"}, {"partial_rotary_factor", 0.25}}), "is 0.25"},
        Refusal{rope({{"rope_type", "llama3"},
                      {"factor", 8},
                      {"low_freq_factor", 4},
                      {"high_freq_factor", 4}}),
                "'high_freq_factor' is not above"},
        Refusal{rope("yarn"), "rope_scaling: expected a JSON object"},
        Refusal{{{"rope_scaling", {{"type", "linear"}, {"factor", 2.0}}},
                 {"rope_parameters", {{"rope_type", "default"}}}},
                "contradicts 'rope_parameters'"}));

INSTANTIATE_TEST_SUITE_P(
    Sizes, ConfigRefuses,
    ::testing::Values(
        Refusal{{{"hidden_size", nullptr}}, "'hidden_size' is missing"},
        Refusal{{{"hidden_size", "64"}},
                "'hidden_size' is \"64\", expected an integer in [1, 65536]"},
        Refusal{{{"hidden_size", 64.5}}, "'hidden_size' is 64.5"},
        Refusal{{{"hidden_size", -1}}, "'hidden_size' is -1"},
        Refusal{{{"hidden_size", 0}}, "'hidden_size' is 0"},
        Refusal{{{"num_hidden_layers", 1ull << 63}}, "'num_hidden_layers' is 9223372036854775808"},
        Refusal{{{"vocab_size", 1e308}}, "'vocab_size' is 1e+308"},
        Refusal{{{"num_key_value_heads", 3}}, "is 3, not a divisor of 2 attention heads"},
        Refusal{{{"head_dim", 72}}, "'head_dim' is 72, expected a multiple of 16"},
        Refusal{{{"head_dim", 512}}, "'head_dim' is 512"},
        Refusal{{{"head_dim", nullptr}}, "'head_dim' is 32"},
        Refusal{{{"rms_norm_eps", 0.0}}, "'rms_norm_eps' is 0"},
        Refusal{{{"rope_theta", -1.0}}, "'rope_theta' is -1"},
        Refusal{{{"tie_word_embeddings", "yes"}}, "'tie_word_embeddings' is \"yes\""},
        Refusal{{{"max_position_embeddings", 0}}, "'max_position_embeddings' is 0"}));

TEST(Config, RefusesTextThatIsNotAConfig) {
  const auto message = [](std::string_view text) {
    return std::string(parse_model_config(text, "", "config.json").status().message());
  };
  EXPECT_THAT(message(""), HasSubstr("config.json: not valid JSON"));
  EXPECT_THAT(message(R"({"rms_norm_eps": NaN})"), HasSubstr("not valid JSON"));
  EXPECT_THAT(message(R"({"rope_theta": 1e999})"), HasSubstr("not valid JSON"));
  EXPECT_THAT(message("{\"a\": \"\xff\"}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(message("[]"), HasSubstr("expected a JSON object"));
  EXPECT_THAT(message("null"), HasSubstr("expected a JSON object"));
  EXPECT_THAT(message(R"({"a": {"b": 1, "c": [{}], "b": 2}})"), HasSubstr("key 'b' appears twice"));
  EXPECT_THAT(message(std::string(100000, '[')), HasSubstr("not valid JSON"));
  EXPECT_THAT(message(std::string(70, '[') + std::string(70, ']')), HasSubstr("nested deeper"));
}

TEST(Config, NamesAMissingFile) {
  const test::TempDir folder;
  const absl::Status status = load_model_config(folder.path(), "").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr(folder.path() + "/config.json"));
}

}  // namespace
}  // namespace pbserve::models
