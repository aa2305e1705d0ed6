#include "server/openai/fields.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace pbserve::server {
namespace {

constexpr size_t kMaxRoleBytes = 64;

// A field and the values of it that change nothing, as a JSON array; null always counts as absent.
struct Unserved {
  absl::string_view name;
  const char* neutral;
  absl::string_view instead = {};  // the field that does it here
};

constexpr Unserved kUnserved[] = {
    {"n", "[1]"},
    {"best_of", "[1]"},
    {"echo", "[false]"},
    {"suffix", "[\"\"]"},
    {"logprobs", "[false]"},
    {"top_logprobs", "[0]"},
    {"prompt_logprobs", "[]"},
    {"logit_bias", "[{}]"},
    {"presence_penalty", "[0, 0.0]"},
    {"frequency_penalty", "[0, 0.0]"},
    {"repetition_penalty", "[1, 1.0]"},
    {"length_penalty", "[1, 1.0]"},
    {"use_beam_search", "[false]"},
    {"response_format", "[{\"type\": \"text\"}]"},
    {"structured_outputs", "[]"},
    {"guided_json", "[]"},
    {"guided_regex", "[]"},
    {"guided_choice", "[]"},
    {"guided_grammar", "[]"},
    {"allowed_token_ids", "[]"},
    {"bad_words", "[[]]"},
    {"logits_processors", "[[]]"},
    {"truncate_prompt_tokens", "[]"},
    {"return_token_ids", "[false]"},
    {"return_tokens_as_token_ids", "[false]"},
    {"spaces_between_special_tokens", "[true]"},
    {"chat_template", "[]"},
    {"add_generation_prompt", "[true]"},
    {"continue_final_message", "[false]"},
    {"documents", "[[]]"},
    {"functions", "[[]]"},
    {"function_call", "[\"none\"]"},
    {"modalities", "[[\"text\"]]"},
    {"audio", "[]"},
    {"reasoning_effort", "[]"},
    {"web_search_options", "[]"},
    {"verbosity", "[\"medium\"]"},
    {"extra_body", "[{}]", "its fields at the top of the body"},  // clients merge it themselves
    // Fields of other servers: llama.cpp's,
    {"n_predict", "[]", "max_tokens"},
    {"repeat_penalty", "[1, 1.0]"},
    {"grammar", "[\"\"]"},
    {"json_schema", "[]"},  // and SGLang's
    {"samplers", "[]"},
    {"mirostat", "[0]"},
    {"typical_p", "[1, 1.0]"},  // and TGI's
    {"top_n_sigma", "[-1, -1.0]"},
    {"dynatemp_range", "[0, 0.0]"},
    {"dry_multiplier", "[0, 0.0]"},
    {"xtc_probability", "[0, 0.0]"},
    {"n_probs", "[0]"},
    {"lora", "[[]]"},
    // SGLang's,
    {"sampling_params", "[]", "its fields at the top of the body"},
    {"regex", "[]"},
    {"ebnf", "[]"},
    {"stop_regex", "[]"},
    {"no_stop_trim", "[false]", "include_stop_str_in_output"},
    {"min_new_tokens", "[0]", "min_tokens"},
    {"custom_logit_processor", "[]"},
    {"lora_path", "[]"},
    // TGI's and transformers'.
    {"parameters", "[]", "its fields at the top of the body"},
    {"max_new_tokens", "[]", "max_tokens"},
    {"max_length", "[]", "max_tokens"},
    {"stop_sequences", "[[]]", "stop"},  // and Anthropic's
    {"max_tokens_to_sample", "[]", "max_tokens"},
    {"do_sample", "[true]", "temperature"},
    {"num_beams", "[1]"},
    {"no_repeat_ngram_size", "[0]"},
    {"truncate", "[]"},
    {"watermark", "[false]"},
    {"adapter_id", "[]"},
    {"enable_thinking", "[]", "chat_template_kwargs"},
};

// Bookkeeping of the client's, or advice that may be ignored without changing the result.
constexpr absl::string_view kIgnored[] = {"user",
                                          "store",
                                          "metadata",
                                          "service_tier",
                                          "prediction",
                                          "prompt_cache_key",
                                          "safety_identifier",
                                          "parallel_tool_calls",
                                          "truncation_side"};

// One text out of a list of {"type": "text", "text": ...} parts.
std::string join_parts(const Json& parts, const std::string& path, FieldReader* reader) {
  std::string joined;
  for (const Json& part : parts) {
    const bool is_text = part.is_object() && part.value("type", Json()) == "text" &&
                         part.contains("text") && part["text"].is_string();
    if (!is_text) {
      reader->fail(path, R"(must be a string or a list of {"type": "text", "text": "..."} parts)");
      return joined;
    }
    if (!joined.empty()) joined += '\n';
    joined += part["text"].get_ref<const std::string&>();
  }
  return joined;
}

// A role stands in the template outside the content, so it must not be able to hold markup.
bool is_role(const Json& role) {
  if (!role.is_string()) return false;
  const std::string& text = role.get_ref<const std::string&>();
  return !text.empty() && text.size() <= kMaxRoleBytes &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) {
           return absl::ascii_isalnum(c) || c == '_' || c == '-';
         });
}

void read_message(const std::string& path, Json* message, FieldReader* reader) {
  if (!message->is_object()) return reader->fail(path, "must be an object");
  if (!message->contains("role") || !is_role((*message)["role"])) {
    return reader->fail(path + ".role", "must be a name such as user, assistant or system");
  }
  const auto calls = message->find("tool_calls");
  const bool has_calls = calls != message->end() && !calls->is_null();
  if (has_calls && !calls->is_array()) {
    return reader->fail(path + ".tool_calls", "must be an array");
  }
  if (!message->contains("content") || (*message)["content"].is_null()) {
    // An assistant's turn may consist of tool calls alone.
    if (has_calls) return;
    return reader->fail(path + ".content", "is missing");
  }
  Json& content = (*message)["content"];
  if (content.is_string()) return;
  if (!content.is_array()) {
    return reader->fail(path + ".content", "must be a string or a list of text parts");
  }
  content = join_parts(content, path + ".content", reader);
}

void read_tools(FieldReader* reader, engine::ChatPrompt* chat) {
  const Json* choice = reader->find("tool_choice");
  if (choice != nullptr && *choice != "auto" && *choice != "none") {
    reader->fail("tool_choice",
                 "can be \"auto\" or \"none\": the output is plain text, no call can be forced");
  }
  const Json* tools = reader->find("tools");
  if (tools == nullptr) return;
  if (!tools->is_array() || !std::all_of(tools->begin(), tools->end(),
                                         [](const Json& tool) { return tool.is_object(); })) {
    return reader->fail("tools", "must be an array of objects");
  }
  const bool is_off = choice != nullptr && *choice == "none";
  if (!tools->empty() && !is_off) chat->tools_json = dump_json(*tools);
}

}  // namespace

engine::ChatPrompt read_conversation(FieldReader* reader) {
  engine::ChatPrompt chat;
  const Json* given = reader->find("messages");
  if (given == nullptr || !given->is_array() || given->empty()) {
    reader->fail("messages", "must be an array of at least one message");
    return chat;
  }
  Json messages = *given;
  for (size_t i = 0; i < messages.size() && reader->ok(); ++i) {
    read_message(absl::StrCat("messages[", i, "]"), &messages[i], reader);
  }
  chat.messages_json = dump_json(messages);
  read_tools(reader, &chat);
  if (const Json* kwargs = reader->find("chat_template_kwargs")) {
    if (!kwargs->is_object()) reader->fail("chat_template_kwargs", "must be an object");
    chat.template_kwargs_json = dump_json(*kwargs);
  }
  return chat;
}

void refuse_unserved(FieldReader* reader) {
  for (const auto& [name, neutral, instead] : kUnserved) {
    const Json* value = reader->find(name);
    if (value == nullptr) continue;
    const Json allowed = Json::parse(neutral);
    if (std::find(allowed.begin(), allowed.end(), *value) != allowed.end()) continue;
    std::string text = "is not supported";
    if (!instead.empty()) {
      absl::StrAppend(&text, ": use ", instead);
    } else if (!allowed.empty()) {
      absl::StrAppend(&text, ", except as ", allowed.front().dump(), ", which changes nothing");
    }
    reader->fail(name, text);
  }
  for (const absl::string_view name : kIgnored) reader->accept(name);
}

Json unserved_fields() {
  Json fields = Json::object();
  for (const Unserved& field : kUnserved) {
    fields[std::string(field.name)] = Json::parse(field.neutral);
  }
  return fields;
}

std::vector<std::string> ignored_fields() { return {std::begin(kIgnored), std::end(kIgnored)}; }

}  // namespace pbserve::server
