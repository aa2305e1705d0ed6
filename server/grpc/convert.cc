#include "server/grpc/convert.h"

#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/error_details.pb.h"
#include "server/api_error.h"
#include "server/json/field_reader.h"
#include "server/openai/fields.h"
#include "server/request_id.h"
#include "server/version.h"

namespace pbserve::server {
namespace {

// JSON that a message carries as text.
absl::Status read_json_field(absl::string_view name, const std::string& text,
                             const JsonLimits& limits, Json* body) {
  if (text.empty()) return absl::OkStatus();
  absl::StatusOr<Json> value = parse_json(text, limits);
  if (!value.ok()) return invalid_field(name, absl::StrCat(name, ": ", value.status().message()));
  (*body)[std::string(name)] = *std::move(value);
  return absl::OkStatus();
}

// Through the reader of the OpenAI body: both transports refuse the same conversations.
absl::StatusOr<engine::Prompt> from_proto(const v1::ChatMessages& chat, const JsonLimits& limits) {
  constexpr int kValuesOfMessage = 3;  // an object and its two strings, as in JSON
  RETURN_IF_ERROR(
      check_count("messages", int64_t{chat.messages_size()} * kValuesOfMessage, limits));
  Json body = {{"messages", Json::array()}};
  for (const v1::ChatMessage& message : chat.messages()) {
    body["messages"].push_back({{"role", message.role()}, {"content", message.content()}});
  }
  RETURN_IF_ERROR(read_json_field("tools", chat.tools_json(), limits, &body));
  RETURN_IF_ERROR(
      read_json_field("chat_template_kwargs", chat.template_kwargs_json(), limits, &body));
  FieldReader reader(body);
  engine::ChatPrompt prompt = read_conversation(&reader);
  RETURN_IF_ERROR(reader.status());
  return engine::Prompt(std::move(prompt));
}

absl::StatusOr<engine::Prompt> from_proto(const v1::GenerateRequest& message,
                                          const JsonLimits& limits) {
  switch (message.prompt_case()) {
    case v1::GenerateRequest::kText:
      return engine::Prompt(message.text());
    case v1::GenerateRequest::kTokenIds:
      RETURN_IF_ERROR(check_count("token_ids", message.token_ids().ids_size(), limits));
      return engine::Prompt(
          std::vector<int32_t>(message.token_ids().ids().begin(), message.token_ids().ids().end()));
    case v1::GenerateRequest::kChat:
      return from_proto(message.chat(), limits);
    case v1::GenerateRequest::PROMPT_NOT_SET:
      break;
  }
  return invalid_field("prompt", "prompt is missing: set text, token_ids or chat");
}

engine::SamplingParams from_proto(const v1::SamplingParams& message) {
  engine::SamplingParams sampling;
  if (message.has_temperature()) sampling.temperature = message.temperature();
  if (message.has_top_p()) sampling.top_p = message.top_p();
  if (message.has_top_k()) sampling.top_k = message.top_k();
  if (message.has_min_p()) sampling.min_p = message.min_p();
  if (message.has_seed()) sampling.seed = message.seed();
  return sampling;
}

engine::StopRules from_proto(const v1::StopRules& message) {
  engine::StopRules stop;
  if (message.has_max_tokens()) stop.max_tokens = message.max_tokens();
  stop.min_tokens = message.min_tokens();
  stop.strings.assign(message.strings().begin(), message.strings().end());
  stop.token_ids.assign(message.token_ids().begin(), message.token_ids().end());
  stop.ignore_eos = message.ignore_eos();
  stop.include_stop_string = message.include_stop_str_in_output();
  return stop;
}

absl::StatusOr<engine::SparseAttention> from_proto(const v1::SparseAttention& message) {
  engine::SparseAttention sparse;
  if (message.has_threshold()) sparse.threshold = message.threshold();
  switch (message.mode()) {
    case v1::SPARSE_MODE_UNSPECIFIED:
      return sparse;
    case v1::SPARSE_MODE_AUTO:
      sparse.mode = engine::SparseMode::kAuto;
      return sparse;
    case v1::SPARSE_MODE_DENSE:
      sparse.mode = engine::SparseMode::kDense;
      return sparse;
    case v1::SPARSE_MODE_PBS:
      sparse.mode = engine::SparseMode::kPbs;
      return sparse;
    default:  // proto3 lets unknown numbers through
      return invalid_field("sparse_attention.mode", absl::StrCat("sparse_attention.mode is ",
                                                                 static_cast<int>(message.mode()),
                                                                 ", must be AUTO, DENSE or PBS"));
  }
}

// A context stands before text and ids, and has decided what must be the same for all of it.
absl::Status check_context(const v1::GenerateRequest& message) {
  if (message.context().empty()) return absl::OkStatus();
  if (message.has_chat()) {
    return invalid_field("context",
                         "context goes with text and token_ids: a chat begins as its "
                         "template has it");
  }
  const char* field = !message.cache_salt().empty()      ? "cache_salt"
                      : message.has_add_special_tokens() ? "add_special_tokens"
                                                         : nullptr;
  if (field == nullptr) return absl::OkStatus();
  return invalid_field(field,
                       absl::StrCat(field, " is the context's, and must not stand beside context"));
}

void fill(const engine::Completion& completion, v1::Finished* message) {
  const bool is_length = completion.reason == engine::FinishReason::kLength;
  message->set_reason(is_length ? v1::FINISH_REASON_LENGTH : v1::FINISH_REASON_STOP);
  message->set_matched_stop(completion.matched_stop);
  message->mutable_usage()->set_prompt_tokens(completion.usage.prompt_tokens);
  message->mutable_usage()->set_cached_tokens(completion.usage.cached_tokens);
  message->mutable_usage()->set_completion_tokens(completion.usage.completion_tokens);
  if (const auto& held = completion.usage.cache_held_tokens) {
    message->mutable_usage()->set_cache_held_tokens(*held);
  }
  const engine::Timings& from = completion.timings;
  v1::Timings* timings = message->mutable_timings();
  if (from.queue_ms >= 0) timings->set_queue_ms(from.queue_ms);
  if (from.prefill_ms >= 0) timings->set_prefill_ms(from.prefill_ms);
  if (from.first_token_ms >= 0) timings->set_first_token_ms(from.first_token_ms);
  if (from.generation_ms >= 0) timings->set_generation_ms(from.generation_ms);
  if (from.mean_inter_token_ms >= 0) timings->set_mean_inter_token_ms(from.mean_inter_token_ms);
  v1::SparseReport* sparse = message->mutable_sparse();
  const bool is_pbs = completion.sparse.mode_used == engine::SparseMode::kPbs;
  sparse->set_mode_used(is_pbs ? v1::SPARSE_MODE_PBS : v1::SPARSE_MODE_DENSE);
  sparse->set_density(completion.sparse.density);
  if (const auto& coverage = completion.sparse.coverage) {
    v1::Coverage* to = sparse->mutable_coverage();
    to->set_mean(coverage->mean);
    to->set_lowest_layer(coverage->lowest_layer);
    to->set_lowest_head(coverage->lowest_head);
  }
  sparse->set_forced(completion.sparse.is_forced);
  sparse->mutable_layer_densities()->Add(completion.sparse.layer_densities.begin(),
                                         completion.sparse.layer_densities.end());
}

}  // namespace

absl::Status check_count(absl::string_view field, int64_t count, const JsonLimits& limits) {
  if (count <= limits.max_values) return absl::OkStatus();
  return invalid_field(
      field, absl::StrCat(field, " has ", count, " values: at most http.json.max_values = ",
                          limits.max_values, " are taken"));
}

absl::StatusOr<engine::Request> from_proto(const v1::GenerateRequest& message,
                                           const JsonLimits& limits, std::string request_id) {
  engine::Request request;
  request.id = message.request_id().empty() ? std::move(request_id) : message.request_id();
  RETURN_IF_ERROR(check_request_id(request.id));
  RETURN_IF_ERROR(check_context(message));
  ASSIGN_OR_RETURN(request.prompt, from_proto(message, limits));
  ASSIGN_OR_RETURN(request.sparse, from_proto(message.sparse_attention()));
  request.sampling = from_proto(message.sampling());
  request.stop = from_proto(message.stop());
  request.cache_salt = message.cache_salt();
  request.priority = message.priority();
  request.cache_hold_s = message.cache_hold_s();
  request.add_special_tokens =
      message.has_add_special_tokens() ? message.add_special_tokens() : !message.has_chat();
  if (message.has_skip_special_tokens()) {
    request.skip_special_tokens = message.skip_special_tokens();
  }
  return request;
}

absl::StatusOr<ContextHeader> from_proto(const v1::ContextHeader& message) {
  ContextHeader header{.name = message.name(), .cache_salt = message.cache_salt()};
  if (message.has_ttl_s()) header.ttl_s = message.ttl_s();
  ASSIGN_OR_RETURN(header.sparse, from_proto(message.sparse_attention()));
  if (message.has_add_special_tokens()) header.add_special_tokens = message.add_special_tokens();
  header.priority = message.priority();
  return header;
}

absl::StatusOr<engine::Prompt> prompt_from_proto(const v1::TokenizeRequest& message,
                                                 const JsonLimits& limits) {
  switch (message.prompt_case()) {
    case v1::TokenizeRequest::kText:
      return engine::Prompt(message.text());
    case v1::TokenizeRequest::kChat:
      return from_proto(message.chat(), limits);
    case v1::TokenizeRequest::PROMPT_NOT_SET:
      break;
  }
  return invalid_field("prompt", "prompt is missing: set text or chat");
}

v1::GenerateEvent to_proto(const ResponseEvent& event, const std::string& request_id) {
  v1::GenerateEvent message;
  if (const auto* accepted = std::get_if<engine::Accepted>(&event)) {
    v1::Accepted* to = message.mutable_accepted();
    to->set_request_id(request_id);
    to->set_prompt_tokens(accepted->prompt_tokens);
    to->set_cached_tokens(accepted->cached_tokens);
    to->set_queue_position(accepted->queue_position);
    if (accepted->estimated_ttft_ms >= 0) to->set_estimated_ttft_ms(accepted->estimated_ttft_ms);
  } else if (const auto* progress = std::get_if<engine::PrefillProgress>(&event)) {
    v1::PrefillProgress* to = message.mutable_progress();
    to->set_processed_tokens(progress->processed_tokens);
    to->set_total_tokens(progress->total_tokens);
    to->set_elapsed_ms(progress->elapsed_ms);
    if (progress->eta_ms >= 0) to->set_eta_ms(progress->eta_ms);
  } else if (const auto* delta = std::get_if<engine::TextDelta>(&event)) {
    message.mutable_chunk()->set_text(delta->text);
    message.mutable_chunk()->mutable_token_ids()->Add(delta->token_ids.begin(),
                                                      delta->token_ids.end());
  } else {
    fill(std::get<engine::Completion>(event), message.mutable_finished());
  }
  return message;
}

void fill(const engine::EngineInfo& info, v1::GetServerInfoResponse* message) {
  message->set_version(std::string(kVersion));
  message->set_model(info.model_name);
  message->set_architecture(info.architecture);
  message->set_device(info.device);
  message->set_dtype(info.dtype);
  message->set_max_model_len(info.max_model_len);
  message->set_num_pages(info.num_pages);
  message->set_page_size(info.page_size);
  message->set_vocab_size(info.vocab_size);
  message->set_sparse_attention(info.sparse_attention);
}

std::string error_details(const absl::Status& status) {
  v1::ErrorStatus details;
  details.set_code(grpc_code(status));
  details.set_message(std::string(status.message()));
  const auto add = [&details](const char* type, const google::protobuf::MessageLite& message) {
    google::protobuf::Any* any = details.add_details();
    any->set_type_url(absl::StrCat("type.googleapis.com/google.rpc.", type));
    any->set_value(message.SerializeAsString());
  };
  if (const std::string param = error_param(status); !param.empty()) {
    v1::FieldViolations violations;
    v1::FieldViolation* violation = violations.add_field_violations();
    violation->set_field(param);
    violation->set_description(std::string(status.message()));
    add("BadRequest", violations);
  }
  if (const int seconds = retry_after_s(status); seconds > 0) {
    v1::RetryDelay delay;
    delay.mutable_retry_delay()->set_seconds(seconds);
    add("RetryInfo", delay);
  }
  return details.SerializeAsString();
}

}  // namespace pbserve::server
