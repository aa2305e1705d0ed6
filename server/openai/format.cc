#include "server/openai/format.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/http/sse.h"

namespace pbserve::server {
namespace {

Json finish_reason(const engine::Completion* finish) {
  if (finish == nullptr) return nullptr;
  return finish->reason == engine::FinishReason::kLength ? "length" : "stop";
}

std::string response_id(OpenAiApi api, absl::string_view request_id) {
  return absl::StrCat(api == OpenAiApi::kChat ? "chatcmpl-" : "cmpl-", request_id);
}

// null where the phase was not reached.
Json duration(double ms) { return ms < 0 ? Json(nullptr) : Json(ms); }

}  // namespace

OpenAiFormatter::OpenAiFormatter(Options options) : options_(std::move(options)) {}

void OpenAiFormatter::on_accepted(const engine::Accepted& accepted) {
  usage_.prompt_tokens = accepted.prompt_tokens;
  usage_.cached_tokens = accepted.cached_tokens;
}

Json OpenAiFormatter::head(absl::string_view object) const {
  return {{"id", response_id(options_.api, options_.request_id)},
          {"object", std::string(object)},
          {"created", options_.created_s},
          {"model", options_.model},
          {"system_fingerprint", options_.fingerprint}};
}

Json OpenAiFormatter::choice(absl::string_view key, Json content,
                             const engine::Completion* finish) const {
  Json choice = {{"index", 0}};
  choice[std::string(key)] = std::move(content);
  choice["logprobs"] = nullptr;
  choice["finish_reason"] = finish_reason(finish);
  if (finish != nullptr) {
    choice["stop_reason"] =
        finish->matched_stop.empty() ? Json(nullptr) : Json(finish->matched_stop);
  }
  return choice;
}

Json OpenAiFormatter::chunk() const {
  Json chunk = head(is_chat() ? "chat.completion.chunk" : "text_completion");
  chunk["choices"] = Json::array();
  if (options_.continuous_usage) {
    chunk["usage"] = format_usage(usage_);
  } else if (options_.include_usage) {
    chunk["usage"] = nullptr;
  }
  return chunk;
}

void OpenAiFormatter::append_choice(absl::string_view text, const engine::Completion* finish,
                                    std::string* sse) {
  Json event = chunk();
  if (is_chat()) {
    Json delta = Json::object();
    if (!text.empty()) delta["content"] = std::string(text);
    event["choices"].push_back(choice("delta", std::move(delta), finish));
  } else {
    event["choices"].push_back(choice("text", std::string(text), finish));
  }
  append_sse_data(dump_json(event), sse);
}

// With the first text, not before: clients take the first chunk for the first token.
void OpenAiFormatter::append_role_once(std::string* sse) {
  if (!is_chat() || role_sent_) return;
  role_sent_ = true;
  Json event = chunk();
  event["choices"].push_back(
      choice("delta", {{"role", "assistant"}, {"content", ""}}, /*finish=*/nullptr));
  append_sse_data(dump_json(event), sse);
}

void OpenAiFormatter::append_progress(const engine::PrefillProgress& progress, std::string* sse) {
  Json event = chunk();  // in llama.cpp's shape, and an estimate besides
  event["prompt_progress"] = {{"total", progress.total_tokens},
                              {"cache", usage_.cached_tokens},
                              {"processed", progress.processed_tokens},
                              {"time_ms", progress.elapsed_ms},
                              {"eta_ms", duration(progress.eta_ms)}};
  append_sse_data(dump_json(event), sse);
}

void OpenAiFormatter::append_text(const engine::TextDelta& delta, std::string* sse) {
  usage_.completion_tokens += std::ssize(delta.token_ids);
  if (delta.text.empty()) return;  // half a character
  append_role_once(sse);
  append_choice(delta.text, /*finish=*/nullptr, sse);
}

void OpenAiFormatter::append_finish(const engine::Completion& completion, std::string* sse) {
  usage_ = completion.usage;
  append_role_once(sse);
  append_choice("", &completion, sse);
  if (options_.include_usage || options_.include_metrics) {
    Json event = chunk();
    if (options_.include_usage) event["usage"] = format_usage(usage_);
    if (options_.include_metrics) event["metrics"] = format_metrics(completion);
    append_sse_data(dump_json(event), sse);
  }
  append_sse_data("[DONE]", sse);
}

std::string OpenAiFormatter::response(absl::string_view text,
                                      const engine::Completion& completion) const {
  Json body = head(is_chat() ? "chat.completion" : "text_completion");
  Json content = std::string(text);
  if (is_chat()) content = {{"role", "assistant"}, {"content", std::string(text)}};
  body["choices"] =
      Json::array({choice(is_chat() ? "message" : "text", std::move(content), &completion)});
  body["usage"] = format_usage(completion.usage);
  if (options_.include_metrics) body["metrics"] = format_metrics(completion);
  return dump_json(body);
}

Json format_render(const OpenAiCall& call, const engine::RenderedRequest& rendered,
                   const std::string& model) {
  const engine::Request& request = call.request;
  const engine::SamplingParams& sampling = rendered.sampling;
  const Json sampling_params = {{"n", 1},
                                {"temperature", shortest_decimal(*sampling.temperature)},
                                {"top_p", shortest_decimal(*sampling.top_p)},
                                {"top_k", *sampling.top_k},
                                {"min_p", shortest_decimal(sampling.min_p)},
                                {"seed", sampling.seed ? Json(*sampling.seed) : Json(nullptr)},
                                {"stop", request.stop.strings},
                                {"stop_token_ids", request.stop.token_ids},
                                {"ignore_eos", request.stop.ignore_eos},
                                {"include_stop_str_in_output", request.stop.include_stop_string},
                                {"max_tokens", rendered.max_tokens},
                                {"min_tokens", request.stop.min_tokens},
                                {"skip_special_tokens", request.skip_special_tokens}};
  const Json stream_options = {{"include_usage", call.include_usage},
                               {"continuous_usage_stats", call.continuous_usage}};
  return {{"request_id", response_id(call.api, request.id)},
          {"token_ids", rendered.prompt},
          {"features", nullptr},  // of images
          {"sampling_params", sampling_params},
          {"model", model},
          {"stream", call.stream},
          {"stream_options", call.stream ? stream_options : Json(nullptr)},
          {"cache_salt", request.cache_salt.empty() ? Json(nullptr) : Json(request.cache_salt)},
          {"priority", request.priority},
          {"kv_transfer_params", nullptr}};
}

Json format_usage(const engine::Usage& usage) {
  Json json = {{"prompt_tokens", usage.prompt_tokens},
               {"completion_tokens", usage.completion_tokens},
               {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
               {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}}};
  if (usage.cache_held_tokens) json["cache_held_tokens"] = *usage.cache_held_tokens;
  return json;
}

Json format_metrics(const engine::Completion& completion) {
  const engine::Timings& timings = completion.timings;
  const bool has_rate = timings.mean_inter_token_ms > 0;
  const auto& coverage = completion.sparse.coverage;
  return {
      {"time_to_first_token_ms", duration(timings.first_token_ms)},
      {"queue_time_ms", duration(timings.queue_ms)},
      {"prefill_time_ms", duration(timings.prefill_ms)},
      {"generation_time_ms", duration(timings.generation_ms)},
      {"mean_itl_ms", duration(timings.mean_inter_token_ms)},
      {"tokens_per_second", has_rate ? Json(1000 / timings.mean_inter_token_ms) : Json(nullptr)},
      {"sparse_attention",
       {{"mode", std::string(sparse_mode_name(completion.sparse.mode_used))},
        {"density", completion.sparse.density},
        {"coverage", coverage ? Json(coverage->mean) : Json(nullptr)},
        {"coverage_lowest_layer", coverage ? Json(coverage->lowest_layer) : Json(nullptr)},
        {"coverage_lowest_head", coverage ? Json(coverage->lowest_head) : Json(nullptr)},
        {"forced", completion.sparse.is_forced},
        {"layer_densities", completion.sparse.layer_densities}}}};
}

absl::string_view sparse_mode_name(engine::SparseMode mode) {
  switch (mode) {
    case engine::SparseMode::kAuto:
      return "auto";
    case engine::SparseMode::kDense:
      return "dense";
    case engine::SparseMode::kPbs:
      return "pbs";
  }
  return "unknown";
}

std::string system_fingerprint(absl::string_view version, absl::string_view sparse_attention) {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a: stable across builds, unlike std::hash
  for (const unsigned char c : sparse_attention) hash = (hash ^ c) * 0x100000001b3;
  return absl::StrFormat("pbserve-%s-%08x", version, hash >> 32);
}

}  // namespace pbserve::server
