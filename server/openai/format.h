// Engine results -> OpenAI-style response bodies and stream chunks. One formatter per request; it
// remembers what the chunks repeat (id, model, usage so far) and touches no socket.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "engine/request.h"
#include "server/json/body.h"
#include "server/openai/parse.h"

namespace pbserve::server {

class OpenAiFormatter {
 public:
  struct Options {
    OpenAiApi api = OpenAiApi::kCompletion;
    std::string request_id;
    std::string model;
    std::string fingerprint;
    int64_t created_s = 0;  // Unix time
    bool include_usage = false;
    bool continuous_usage = false;
    bool include_metrics = false;
  };

  explicit OpenAiFormatter(Options options);

  void on_accepted(const engine::Accepted& accepted);

  // Stream chunks: each appends the text of zero or more SSE events.
  void append_progress(const engine::PrefillProgress& progress, std::string* sse);
  void append_text(const engine::TextDelta& delta, std::string* sse);
  // The finish reason, the usage if asked for, and [DONE].
  void append_finish(const engine::Completion& completion, std::string* sse);

  // The whole body of a request that does not stream.
  std::string response(absl::string_view text, const engine::Completion& completion) const;

 private:
  Json head(absl::string_view object) const;
  // {"index": 0, <content>, "logprobs": null, "finish_reason": ...}
  Json choice(absl::string_view key, Json content, const engine::Completion* finish) const;
  Json chunk() const;
  void append_role_once(std::string* sse);
  void append_choice(absl::string_view text, const engine::Completion* finish, std::string* sse);
  bool is_chat() const { return options_.api == OpenAiApi::kChat; }

  Options options_;
  engine::Usage usage_;  // so far
  bool role_sent_ = false;
};

// The GenerateRequest of vLLM (0.24: entrypoints/serve/render/serving.py makes it from the fields
// of entrypoints/serve/disagg/protocol.py): what its token-in engines take, and gateways read.
Json format_render(const OpenAiCall& call, const engine::RenderedRequest& rendered,
                   const std::string& model);

// {"prompt_tokens", "total_tokens", "completion_tokens", "prompt_tokens_details"}
Json format_usage(const engine::Usage& usage);
// Milliseconds, tokens per second, and what prefill attention computed.
Json format_metrics(const engine::Completion& completion);
absl::string_view sparse_mode_name(engine::SparseMode mode);

// Changes whenever the version or the settings of sparse attention do.
std::string system_fingerprint(absl::string_view version, absl::string_view sparse_attention);

}  // namespace pbserve::server
