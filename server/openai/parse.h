// OpenAI-style request bodies -> engine::Request. Fields that change the result and are not served
// are refused by name unless they hold the value that changes nothing. Types are checked here,
// ranges by the engine, which every transport shares.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/request.h"
#include "kernels/core/status.h"
#include "server/contexts/context_store.h"
#include "server/json/body.h"

namespace pbserve::server {

enum class OpenAiApi : uint8_t { kCompletion, kChat };

// One call of /v1/completions or /v1/chat/completions.
struct OpenAiCall {
  OpenAiApi api = OpenAiApi::kCompletion;
  engine::Request request;
  std::string context;  // the id of one that stands before the prompt; or empty
  bool stream = false;
  bool include_usage = false;     // a last chunk with the usage
  bool continuous_usage = false;  // usage so far in every chunk
  bool include_metrics = false;   // timings and density beside the usage
  bool return_progress = false;   // prompt_progress chunks while the prompt is prefilled
  bool sse_keep_alive = true;
};

struct OpenAiParseOptions {
  std::string model_name;  // the one that is served
  bool strict = false;     // refuse unknown fields
  std::string request_id;  // where the body has none
  // Receives the names of all fields that exist, "sparse_attention.mode": /openapi.json is held to
  // them.
  std::vector<std::string>* known_fields = nullptr;
};

absl::StatusOr<OpenAiCall> parse_completion(const Json& body, const OpenAiParseOptions& options);
absl::StatusOr<OpenAiCall> parse_chat(const Json& body, const OpenAiParseOptions& options);

// /v1/contexts, and the parts of one. Without a prompt there is no part.
struct ContextCall {
  ContextHeader header;
  ContextStore::Part part;
};
absl::StatusOr<ContextCall> parse_context(const Json& body, const OpenAiParseOptions& options);
absl::StatusOr<ContextStore::Part> parse_context_part(const Json& body,
                                                      const OpenAiParseOptions& options);

// /tokenize and /detokenize, in vLLM's shape.
struct TokenizeCall {
  engine::Prompt prompt;
  bool add_special_tokens = true;
  bool return_token_strs = false;
};
absl::StatusOr<TokenizeCall> parse_tokenize(const Json& body, const OpenAiParseOptions& options);
absl::StatusOr<std::vector<int32_t>> parse_detokenize(const Json& body,
                                                      const OpenAiParseOptions& options);

}  // namespace pbserve::server
