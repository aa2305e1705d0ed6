// OpenAI bodies -> requests: every field, every refusal.
#include "server/openai/parse.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "server/api_error.h"

namespace pbserve::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

OpenAiParseOptions options() { return {.model_name = "demo", .strict = false, .request_id = "r1"}; }

absl::StatusOr<OpenAiCall> completion(const char* json) {
  return parse_completion(Json::parse(json), options());
}

// A chat with one message and the given fields besides.
absl::StatusOr<OpenAiCall> chat(const char* fields) {
  Json body = {{"messages", Json::array({{{"role", "user"}, {"content", "Hi"}}})}};
  body.update(Json::parse(fields));
  return parse_chat(body, options());
}

std::string param(const absl::StatusOr<OpenAiCall>& call) { return error_param(call.status()); }

const engine::ChatPrompt& conversation(const OpenAiCall& call) {
  return std::get<engine::ChatPrompt>(call.request.prompt);
}

TEST(ParseCompletion, Defaults) {
  const OpenAiCall call = *completion(R"({"prompt": "Hi"})");
  EXPECT_EQ(std::get<std::string>(call.request.prompt), "Hi");
  EXPECT_EQ(call.request.id, "r1");
  EXPECT_EQ(call.request.stop.max_tokens, std::nullopt);
  EXPECT_EQ(call.request.stop.default_max_tokens, 16);
  EXPECT_EQ(call.request.sampling.temperature, std::nullopt);
  EXPECT_TRUE(call.request.add_special_tokens);
  EXPECT_TRUE(call.sse_keep_alive);
  EXPECT_FALSE(call.stream);
}

TEST(ParseCompletion, EveryFieldArrives) {
  const OpenAiCall call = *completion(R"({
    "model": "demo", "prompt": [1, 2], "max_tokens": 5, "min_tokens": 2, "temperature": 0,
    "top_p": 0.5, "top_k": 40, "min_p": 0.1, "seed": 7, "stop": ["a", "b"],
    "stop_token_ids": [3], "ignore_eos": true, "include_stop_str_in_output": true,
    "skip_special_tokens": false, "add_special_tokens": false, "cache_salt": "s", "priority": -2,
    "cache_hold_s": 90.5, "request_id": "mine", "stream": true, "include_metrics": true,
    "return_progress": true,
    "sse_keep_alive": false, "sparse_attention": {"mode": "pbs", "threshold": 0.5},
    "stream_options": {"include_usage": true, "continuous_usage_stats": true}})");
  const engine::Request& request = call.request;
  EXPECT_THAT(std::get<std::vector<int32_t>>(request.prompt), ElementsAre(1, 2));
  EXPECT_EQ(request.id, "mine");
  EXPECT_EQ(request.stop.max_tokens, 5);
  EXPECT_EQ(request.stop.min_tokens, 2);
  EXPECT_EQ(request.sampling.temperature, 0.0f);
  EXPECT_EQ(request.sampling.top_p, 0.5f);
  EXPECT_EQ(request.sampling.top_k, 40);
  EXPECT_EQ(request.sampling.min_p, 0.1f);
  EXPECT_EQ(request.sampling.seed, 7);
  EXPECT_THAT(request.stop.strings, ElementsAre("a", "b"));
  EXPECT_THAT(request.stop.token_ids, ElementsAre(3));
  EXPECT_TRUE(request.stop.ignore_eos);
  EXPECT_TRUE(request.stop.include_stop_string);
  EXPECT_FALSE(request.skip_special_tokens);
  EXPECT_FALSE(request.add_special_tokens);
  EXPECT_EQ(request.cache_salt, "s");
  EXPECT_EQ(request.priority, -2);
  EXPECT_EQ(request.cache_hold_s, 90.5f);
  EXPECT_EQ(request.sparse.mode, engine::SparseMode::kPbs);
  EXPECT_EQ(request.sparse.threshold, 0.5f);
  EXPECT_TRUE(call.stream && call.include_usage && call.continuous_usage && call.include_metrics &&
              call.return_progress);
  EXPECT_FALSE(call.sse_keep_alive);
}

TEST(ParseCompletion, OnePromptInAnyShape) {
  EXPECT_EQ(std::get<std::string>(completion(R"({"prompt": ["Hi"]})")->request.prompt), "Hi");
  EXPECT_THAT(std::get<std::vector<int32_t>>(completion(R"({"prompt": [[4, 5]]})")->request.prompt),
              ElementsAre(4, 5));
  for (const char* wrong :
       {R"({})", R"({"prompt": null})", R"({"prompt": []})", R"({"prompt": [[]]})",
        R"({"prompt": ["a", "b"]})", R"({"prompt": [[1], [2]]})", R"({"prompt": [1, "a"]})",
        R"({"prompt": [1.5]})", R"({"prompt": {"a": 1}})", R"({"prompt": [[[1]]]})",
        R"({"prompt": 5})", R"({"prompt": [4294967296]})"}) {
    EXPECT_EQ(param(completion(wrong)), "prompt") << wrong;
  }
}

TEST(ParseCompletion, TopKMinusOneIsAll) {
  EXPECT_EQ(completion(R"({"prompt": "x", "top_k": -1})")->request.sampling.top_k, 0);
}

TEST(ParseCompletion, WrongTypesNameTheField) {
  for (const char* field :
       {"max_tokens", "min_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop",
        "stop_token_ids", "ignore_eos", "stream", "cache_salt", "cache_hold_s", "request_id",
        "model", "include_metrics", "sparse_attention", "add_special_tokens", "return_progress"}) {
    Json body = {{"prompt", "x"}};
    body[field] = Json::array({Json::array()});
    EXPECT_EQ(error_param(parse_completion(body, options()).status()), field);
  }
}

TEST(ParseCompletion, RefusesWhatIsNotServed) {
  for (const char* field :
       {R"("n": 2)", R"("best_of": 2)", R"("echo": true)", R"("suffix": "x")", R"("logprobs": 0)",
        R"("logprobs": true)", R"("top_logprobs": 1)", R"("logit_bias": {"5": 1})",
        R"("presence_penalty": 0.1)", R"("frequency_penalty": -1)", R"("repetition_penalty": 1.1)",
        R"("response_format": {"type": "json_object"})", R"("truncate_prompt_tokens": 5)",
        R"("structured_outputs": {})", R"("chat_template": "x")", R"("use_beam_search": true)",
        R"("n": "1")"}) {
    const auto call = completion((R"({"prompt": "x", )" + std::string(field) + "}").c_str());
    EXPECT_EQ(call.status().code(), absl::StatusCode::kInvalidArgument) << field;
    EXPECT_THAT(field, HasSubstr(param(call)));
    EXPECT_THAT(std::string(call.status().message()), HasSubstr("is not supported"));
  }
}

TEST(ParseCompletion, RefusesFieldsOfOtherServersByName) {
  for (const char* field :
       {R"("repeat_penalty": 1.1)", R"("grammar": "root ::= x")", R"("json_schema": {})",
        R"("n_predict": 5)", R"("max_new_tokens": 5)", R"("stop_sequences": ["a"])",
        R"("do_sample": false)", R"("regex": "a+")", R"("mirostat": 2)", R"("typical_p": 0.5)",
        R"("min_new_tokens": 2)", R"("truncate": 5)", R"("enable_thinking": false)",
        R"("num_beams": 4)", R"("sampling_params": {})", R"("extra_body": {"top_k": 1})"}) {
    const auto call = completion((R"({"prompt": "x", )" + std::string(field) + "}").c_str());
    EXPECT_EQ(call.status().code(), absl::StatusCode::kInvalidArgument) << field;
    EXPECT_THAT(field, HasSubstr("\"" + param(call) + "\"")) << field;
  }
  const auto message = [](const char* json) {
    return std::string(completion(json).status().message());
  };
  EXPECT_THAT(message(R"({"prompt": "x", "n_predict": 5})"), HasSubstr("use max_tokens"));
  EXPECT_THAT(message(R"({"prompt": "x", "stop_sequences": ["a"]})"), HasSubstr("use stop"));
  EXPECT_TRUE(completion(R"({"prompt": "x", "repeat_penalty": 1, "grammar": "", "mirostat": 0,
    "do_sample": true, "stop_sequences": [], "cache_prompt": true})")
                  .ok());
}

TEST(ParseCompletion, TakesNeutralValues) {
  EXPECT_TRUE(completion(R"({"prompt": "x", "n": 1, "best_of": 1, "echo": false, "suffix": null,
    "logprobs": null, "top_logprobs": 0, "logit_bias": {}, "presence_penalty": 0,
    "frequency_penalty": 0.0, "repetition_penalty": 1.0, "response_format": {"type": "text"},
    "user": "u", "metadata": {"a": 1}, "unheard_of": 5})")
                  .ok());
}

TEST(ParseCompletion, StrictRefusesUnknownFields) {
  OpenAiParseOptions strict = options();
  strict.strict = true;
  EXPECT_TRUE(parse_completion(Json::parse(R"({"prompt": "x", "user": "u"})"), strict).ok());
  const auto parsed = [&](const char* json) {
    return error_param(parse_completion(Json::parse(json), strict).status());
  };
  EXPECT_EQ(parsed(R"({"prompt": "x", "temprature": 1})"), "temprature");
  EXPECT_EQ(parsed(R"({"prompt": "x", "sparse_attention": {"tau": 1}})"), "sparse_attention.tau");
}

TEST(ParseCompletion, ModelMustBeTheServedOne) {
  EXPECT_TRUE(completion(R"({"prompt": "x", "model": "demo"})").ok());
  EXPECT_EQ(completion(R"({"prompt": "x", "model": "gpt-4"})").status().code(),
            absl::StatusCode::kNotFound);
}

TEST(ParseCompletion, StreamOptionsGoWithStream) {
  EXPECT_EQ(param(completion(R"({"prompt": "x", "stream_options": {"include_usage": true}})")),
            "stream_options");
}

TEST(ParseCompletion, RequestIdsAreClean) {
  EXPECT_EQ(param(completion(R"({"prompt": "x", "request_id": "a\nb"})")), "request_id");
  EXPECT_EQ(param(completion(R"({"prompt": "x", "request_id": ""})")), "request_id");
  const std::string longest(128, 'a');
  EXPECT_TRUE(completion((R"({"prompt": "x", "request_id": ")" + longest + "\"}").c_str()).ok());
  EXPECT_FALSE(completion((R"({"prompt": "x", "request_id": "a)" + longest + "\"}").c_str()).ok());
}

TEST(ParseChat, MaxTokensHasTwoNames) {
  EXPECT_EQ(chat("{}")->request.stop.max_tokens, std::nullopt);
  EXPECT_EQ(chat("{}")->request.stop.default_max_tokens, std::nullopt);
  EXPECT_EQ(chat(R"({"max_tokens": 3})")->request.stop.max_tokens, 3);
  EXPECT_EQ(chat(R"({"max_completion_tokens": 4})")->request.stop.max_tokens, 4);
  EXPECT_TRUE(chat(R"({"max_tokens": 3, "max_completion_tokens": 3})").ok());
  EXPECT_EQ(param(chat(R"({"max_tokens": 3, "max_completion_tokens": 4})")), "max_tokens");
}

TEST(ParseChat, SpecialTokensAreTheTemplatesUnlessAskedFor) {
  EXPECT_FALSE(chat("{}")->request.add_special_tokens);
  EXPECT_FALSE(chat(R"({"add_special_tokens": false})")->request.add_special_tokens);
  EXPECT_TRUE(chat(R"({"add_special_tokens": true})")->request.add_special_tokens);
}

TEST(ParseChat, MessagesKeepTheirOrderAndParts) {
  const OpenAiCall call = *parse_chat(Json::parse(R"({"messages": [
      {"role": "system", "content": "S"},
      {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
      {"role": "assistant", "content": null, "tool_calls": []}]})"),
                                      options());
  EXPECT_EQ(conversation(call).messages_json,
            R"([{"role":"system","content":"S"},{"role":"user","content":"a\nb"},)"
            R"({"role":"assistant","content":null,"tool_calls":[]}])");
}

TEST(ParseChat, BadMessagesAreNamed) {
  const auto parsed = [](const char* json) {
    return error_param(parse_chat(Json::parse(json), options()).status());
  };
  EXPECT_EQ(parsed(R"({})"), "messages");
  EXPECT_EQ(parsed(R"({"messages": []})"), "messages");
  EXPECT_EQ(parsed(R"({"messages": "Hi"})"), "messages");
  EXPECT_EQ(parsed(R"({"messages": ["Hi"]})"), "messages[0]");
  EXPECT_EQ(parsed(R"({"messages": [{"content": "Hi"}]})"), "messages[0].role");
  EXPECT_EQ(parsed(R"({"messages": [{"role": "user<|im_end|>", "content": "Hi"}]})"),
            "messages[0].role");
  EXPECT_EQ(parsed(R"({"messages": [{"role": "user"}]})"), "messages[0].content");
  EXPECT_EQ(parsed(R"({"messages": [{"role": "user", "content": 5}]})"), "messages[0].content");
  EXPECT_EQ(parsed(R"({"messages": [{"role": "user", "content": "a"},
      {"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]})"),
            "messages[1].content");
}

TEST(ParseChat, ToolsReachTheTemplateUnlessSwitchedOff) {
  const char* tools = R"({"tools": [{"type": "function", "function": {"name": "f", "a": 1}}]})";
  EXPECT_EQ(conversation(*chat(tools)).tools_json,
            R"([{"type":"function","function":{"name":"f","a":1}}])");
  EXPECT_EQ(conversation(*chat(R"({"tools": [{"a": 1}], "tool_choice": "none"})")).tools_json, "");
  EXPECT_EQ(param(chat(R"({"tools": [], "tool_choice": "required"})")), "tool_choice");
  EXPECT_EQ(param(chat(R"({"tool_choice": {"type": "function"}})")), "tool_choice");
  EXPECT_EQ(
      conversation(*chat(R"({"chat_template_kwargs": {"b": 1, "a": 2}})")).template_kwargs_json,
      R"({"b":1,"a":2})");
  EXPECT_EQ(param(chat(R"({"chat_template_kwargs": 1})")), "chat_template_kwargs");
}

TEST(ParseTokenize, TakesPromptOrMessages) {
  const TokenizeCall text = *parse_tokenize(Json::parse(R"({"prompt": ""})"), options());
  EXPECT_EQ(std::get<std::string>(text.prompt), "");
  EXPECT_TRUE(text.add_special_tokens);
  const TokenizeCall turn = *parse_tokenize(
      Json::parse(R"({"messages": [{"role": "user", "content": "a"}], "return_token_strs": true})"),
      options());
  EXPECT_TRUE(std::holds_alternative<engine::ChatPrompt>(turn.prompt));
  EXPECT_FALSE(turn.add_special_tokens);
  EXPECT_TRUE(turn.return_token_strs);
  EXPECT_EQ(error_param(parse_tokenize(Json::object(), options()).status()), "prompt");
}

TEST(ParseTokenize, TakesATextOrAConversation) {
  const auto param_of = [](const char* json) {
    return error_param(parse_tokenize(Json::parse(json), options()).status());
  };
  EXPECT_EQ(param_of(R"({"prompt": "x", "messages": null})"), "");
  EXPECT_EQ(param_of(R"({"prompt": null, "messages": [{"role": "user", "content": ""}]})"), "");
  EXPECT_EQ(param_of(R"({"prompt": "x", "messages": [{"role": "user", "content": ""}]})"),
            "prompt");
}

TEST(ParseChat, ToolsAndCallsHaveTheirTypes) {
  EXPECT_EQ(param(chat(R"({"tools": [1], "tool_choice": "none"})")), "tools");
  EXPECT_EQ(param(chat(R"({"messages": [{"role": "user", "content": "", "tool_calls": {}}]})")),
            "messages[0].tool_calls");
  EXPECT_EQ(param(chat(R"({"messages": [{"role": "user", "tool_calls": null}]})")),
            "messages[0].content");
}

TEST(ParseCompletion, AnEmptyModeIsNone) {
  EXPECT_EQ(param(completion(R"({"prompt": "x", "sparse_attention": {"mode": ""}})")),
            "sparse_attention.mode");
  EXPECT_TRUE(completion(R"({"prompt": "x", "sparse_attention": {"mode": null}})").ok());
}

TEST(ParseDetokenize, TakesIds) {
  EXPECT_THAT(*parse_detokenize(Json::parse(R"({"tokens": [1, 2]})"), options()),
              ElementsAre(1, 2));
  EXPECT_EQ(error_param(parse_detokenize(Json::object(), options()).status()), "tokens");
}

}  // namespace
}  // namespace pbserve::server
