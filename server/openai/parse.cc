#include "server/openai/parse.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/api_error.h"
#include "server/json/field_reader.h"
#include "server/openai/fields.h"
#include "server/request_id.h"

namespace pbserve::server {
namespace {

constexpr int64_t kCompletionMaxTokens = 16;  // OpenAI's default, and everybody's since

// The end of every reader: all fields that exist have been asked for.
absl::Status finish_fields(const FieldReader& reader, const OpenAiParseOptions& options) {
  RETURN_IF_ERROR(reader.status());
  if (options.known_fields != nullptr) reader.append_known(options.known_fields);
  return options.strict ? reader.check_no_unknown() : absl::OkStatus();
}

// A string, token ids, or a list of exactly one of these.
void read_prompt(FieldReader* reader, engine::Prompt* prompt) {
  const Json* value = reader->find("prompt");
  if (value == nullptr) return reader->fail("prompt", "is missing");
  if (value->is_array() && !value->empty() && !value->front().is_number()) {
    if (value->size() > 1) {
      return reader->fail("prompt",
                          absl::StrCat("holds ", value->size(), " prompts; one request takes 1"));
    }
    value = &value->front();
  }
  if (value->is_string()) {
    *prompt = value->get<std::string>();
    return;
  }
  if (!value->is_array() || value->empty()) {
    return reader->fail("prompt", "must be a string or a non-empty array of token ids");
  }
  std::vector<int32_t> ids;
  reader->convert_ids("prompt", *value, &ids);
  *prompt = std::move(ids);
}

void read_sampling(FieldReader* reader, engine::SamplingParams* sampling) {
  reader->read("temperature", &sampling->temperature);
  reader->read("top_p", &sampling->top_p);
  reader->read("top_k", &sampling->top_k);
  if (sampling->top_k == -1) sampling->top_k = 0;  // both spell "all"
  reader->read("min_p", &sampling->min_p);
  reader->read_seed("seed", &sampling->seed);
}

void read_max_tokens(FieldReader* reader, OpenAiCall* call) {
  std::optional<int64_t> old_name;
  reader->read("max_tokens", &old_name);
  reader->read("max_completion_tokens", &call->request.stop.max_tokens);
  std::optional<int64_t>& max_tokens = call->request.stop.max_tokens;
  if (old_name && max_tokens && *old_name != *max_tokens) {
    return reader->fail("max_tokens", "contradicts max_completion_tokens: send one of them");
  }
  if (old_name) max_tokens = old_name;
  if (call->api == OpenAiApi::kCompletion) {
    call->request.stop.default_max_tokens = kCompletionMaxTokens;
  }
}

void read_stop(FieldReader* reader, OpenAiCall* call) {
  engine::StopRules& stop = call->request.stop;
  read_max_tokens(reader, call);
  reader->read("min_tokens", &stop.min_tokens);
  reader->read_strings("stop", &stop.strings);
  reader->read("stop_token_ids", &stop.token_ids);
  reader->read("ignore_eos", &stop.ignore_eos);
  reader->read("include_stop_str_in_output", &stop.include_stop_string);
}

absl::Status read_sparse(FieldReader* reader, const OpenAiParseOptions& options,
                         engine::SparseAttention* sparse) {
  const Json* value = reader->find("sparse_attention");
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_object()) {
    reader->fail("sparse_attention", R"(must be an object such as {"mode": "dense"})");
    return absl::OkStatus();
  }
  FieldReader inner(*value, "sparse_attention.");
  std::string mode;
  const bool has_mode = inner.find("mode") != nullptr;
  inner.read("mode", &mode);
  inner.read("threshold", &sparse->threshold);
  if (mode == "auto") {
    sparse->mode = engine::SparseMode::kAuto;
  } else if (mode == "dense") {
    sparse->mode = engine::SparseMode::kDense;
  } else if (mode == "pbs") {
    sparse->mode = engine::SparseMode::kPbs;
  } else if (has_mode) {
    inner.fail("mode", "must be auto, dense or pbs");
  }
  return finish_fields(inner, options);
}

absl::Status read_stream_options(FieldReader* reader, const OpenAiParseOptions& options,
                                 OpenAiCall* call) {
  reader->read("stream", &call->stream);
  reader->read("return_progress", &call->return_progress);
  reader->read("sse_keep_alive", &call->sse_keep_alive);
  const Json* value = reader->find("stream_options");
  if (value == nullptr) return absl::OkStatus();
  if (!call->stream || !value->is_object()) {
    reader->fail("stream_options", "must be an object, and goes with \"stream\": true only");
    return absl::OkStatus();
  }
  FieldReader inner(*value, "stream_options.");
  inner.read("include_usage", &call->include_usage);
  inner.read("continuous_usage_stats", &call->continuous_usage);
  inner.accept("include_obfuscation");  // padding against traffic analysis: advice
  return finish_fields(inner, options);
}

absl::Status read_model(FieldReader* reader, const OpenAiParseOptions& options) {
  std::string model;
  reader->read("model", &model);
  RETURN_IF_ERROR(reader->status());
  if (model.empty() || model == options.model_name) return absl::OkStatus();
  return model_not_found(model.substr(0, kRepeatedBytesMax));
}

// A context stands before the prompt, and has decided what must be the same for all of it.
void read_context(FieldReader* reader, OpenAiCall* call) {
  reader->read("context", &call->context);
  if (reader->find("context") == nullptr) return;
  if (call->context.empty()) return reader->fail("context", "must be the id of a context");
  for (const char* name : {"cache_salt", "add_special_tokens"}) {
    if (reader->find(name) == nullptr) continue;
    reader->fail(name, "is the context's, and must not stand beside context");
  }
}

// What both generating routes share.
absl::StatusOr<OpenAiCall> finish(FieldReader* reader, OpenAiCall call,
                                  const OpenAiParseOptions& options) {
  engine::Request& request = call.request;
  request.id = options.request_id;
  reader->read("request_id", &request.id);
  reader->read("add_special_tokens", &request.add_special_tokens);
  reader->read("skip_special_tokens", &request.skip_special_tokens);
  reader->read("cache_salt", &request.cache_salt);
  reader->read("priority", &request.priority);
  reader->read("cache_hold_s", &request.cache_hold_s);
  reader->read("include_metrics", &call.include_metrics);
  read_sampling(reader, &request.sampling);
  read_stop(reader, &call);
  RETURN_IF_ERROR(read_sparse(reader, options, &request.sparse));
  RETURN_IF_ERROR(read_stream_options(reader, options, &call));
  refuse_unserved(reader);
  RETURN_IF_ERROR(finish_fields(*reader, options));
  RETURN_IF_ERROR(check_request_id(request.id));
  return call;
}

}  // namespace

absl::StatusOr<OpenAiCall> parse_completion(const Json& body, const OpenAiParseOptions& options) {
  FieldReader reader(body);
  RETURN_IF_ERROR(read_model(&reader, options));
  OpenAiCall call;
  read_prompt(&reader, &call.request.prompt);
  read_context(&reader, &call);
  return finish(&reader, std::move(call), options);
}

absl::StatusOr<OpenAiCall> parse_chat(const Json& body, const OpenAiParseOptions& options) {
  FieldReader reader(body);
  RETURN_IF_ERROR(read_model(&reader, options));
  OpenAiCall call;
  call.api = OpenAiApi::kChat;
  if (reader.find("context") != nullptr) {
    reader.fail("context", "goes with /v1/completions: a chat begins as its template has it");
  }
  call.request.prompt = read_conversation(&reader);
  call.request.add_special_tokens = false;  // unless asked for: the template writes its own
  return finish(&reader, std::move(call), options);
}

namespace {

void read_part(FieldReader* reader, ContextStore::Part* part) {
  if (reader->find("prompt") != nullptr) read_prompt(reader, &part->prompt.emplace());
  reader->read("last", &part->is_last);
}

}  // namespace

absl::StatusOr<ContextCall> parse_context(const Json& body, const OpenAiParseOptions& options) {
  FieldReader reader(body);
  RETURN_IF_ERROR(read_model(&reader, options));
  ContextCall call;
  reader.read("name", &call.header.name);
  reader.read("ttl_s", &call.header.ttl_s);
  reader.read("cache_salt", &call.header.cache_salt);
  reader.read("priority", &call.header.priority);
  reader.read("add_special_tokens", &call.header.add_special_tokens);
  RETURN_IF_ERROR(read_sparse(&reader, options, &call.header.sparse));
  read_part(&reader, &call.part);
  RETURN_IF_ERROR(finish_fields(reader, options));
  return call;
}

absl::StatusOr<ContextStore::Part> parse_context_part(const Json& body,
                                                      const OpenAiParseOptions& options) {
  FieldReader reader(body);
  ContextStore::Part part;
  read_part(&reader, &part);
  if (!part.prompt && !part.is_last) reader.fail("prompt", "is missing, and so is last: true");
  RETURN_IF_ERROR(finish_fields(reader, options));
  return part;
}

absl::StatusOr<TokenizeCall> parse_tokenize(const Json& body, const OpenAiParseOptions& options) {
  FieldReader reader(body);
  RETURN_IF_ERROR(read_model(&reader, options));
  TokenizeCall call;
  const bool has_text = reader.find("prompt") != nullptr;
  if (reader.find("messages") != nullptr) {
    if (has_text) reader.fail("prompt", "must not stand beside messages: send one of them");
    call.prompt = read_conversation(&reader);
    call.add_special_tokens = false;  // the template writes its own
  } else {
    std::string prompt;
    if (!has_text) reader.fail("prompt", "is missing, and so is messages");
    reader.read("prompt", &prompt);
    call.prompt = std::move(prompt);
  }
  reader.read("add_special_tokens", &call.add_special_tokens);
  reader.read("return_token_strs", &call.return_token_strs);
  refuse_unserved(&reader);
  RETURN_IF_ERROR(finish_fields(reader, options));
  return call;
}

absl::StatusOr<std::vector<int32_t>> parse_detokenize(const Json& body,
                                                      const OpenAiParseOptions& options) {
  FieldReader reader(body);
  RETURN_IF_ERROR(read_model(&reader, options));
  std::vector<int32_t> ids;
  if (reader.find("tokens") == nullptr) reader.fail("tokens", "is missing");
  reader.read("tokens", &ids);
  RETURN_IF_ERROR(finish_fields(reader, options));
  return ids;
}

}  // namespace pbserve::server
