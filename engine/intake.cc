#include "engine/intake.h"

#include <algorithm>
#include <charconv>
#include <random>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/cache_listener.h"
#include "kernels/ops/sample.h"
#include "models/field_error.h"

namespace pbserve::engine {

namespace {

using models::about_field;
using models::field_error;

template <class T>
absl::Status require_range(const char* field, T value, T low, T high) {
  if (low <= value && value <= high) return absl::OkStatus();  // false for NaN
  return field_error(field,
                     absl::StrCat(field, " is ", value, ", must be in [", low, ", ", high, "]"));
}

// `subject`: what has them, if it is not the field as a whole.
absl::Status require_at_most(const char* field, const char* unit, size_t value, int64_t limit,
                             const char* subject = nullptr) {
  if (std::cmp_less_equal(value, limit)) return absl::OkStatus();
  return field_error(field, absl::StrCat(subject != nullptr ? subject : field, " has ", value, " ",
                                         unit, ", at most ", limit, " are allowed"));
}

uint64_t random_seed() {
  thread_local std::random_device source;
  return (static_cast<uint64_t>(source()) << 32) | source();
}

// Thresholds that differ differ in the text too.
std::string exact_digits(float value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

std::string scorer_name(const kernels::PbsParams& params) {
  switch (params.scorer) {
    case kernels::PbsScorer::kMass:
      return "mass";
    case kernels::PbsScorer::kQuery:
      return "query";
    case kernels::PbsScorer::kMean:
      return "mean";
    case kernels::PbsScorer::kAntidiagonal:
      return absl::StrCat("antidiagonal/", params.stride);
  }
  return "";
}

std::string selector_name(kernels::PbsSelector selector) {
  switch (selector) {
    case kernels::PbsSelector::kErrorBound:
      return "error_bound";
    case kernels::PbsSelector::kTopP:
      return "top_p";
    case kernels::PbsSelector::kMaxRatio:
      return "max_ratio";
  }
  return "";
}

}  // namespace

std::string attention_signature(const PbsOptions& pbs, float threshold) {
  const kernels::PbsParams& params = pbs.params;
  const char* order = params.order == kernels::PbsOrder::kSpan ? "" : " natural order";
  const std::string forced = pbs.force_density > 0
                                 ? absl::StrCat(" forced density ", exact_digits(pbs.force_density))
                                 : "";
  return absl::StrCat("pbs ", scorer_name(params), " ", selector_name(params.selector), " ",
                      exact_digits(threshold), " span ", pbs.span, " segment ", params.segment,
                      order, " sink ", params.sink, params.sink_free ? " free" : "", " local ",
                      params.local, " dense_tail ", params.dense_tail, " min_tokens ",
                      pbs.min_tokens, " dense_layers ", pbs.dense_layers, forced);
}

Intake::Intake(const EngineConfig& config, const IntakeLimits& limits,
               const models::Tokenizer& tokenizer,
               std::optional<models::ChatTemplate> chat_template,
               models::GenerationDefaults defaults)
    : config_(config),
      limits_(limits),
      tokenizer_(tokenizer),
      chat_template_(std::move(chat_template)),
      defaults_(std::move(defaults)) {
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    longest_token_bytes_ = std::max(longest_token_bytes_, tokenizer.token_bytes(id).size());
  }
}

absl::StatusOr<SequenceSpec> Intake::admit(const Request& request, SequenceId id) const {
  RETURN_IF_ERROR(check_stop(request.stop));
  RETURN_IF_ERROR(require_at_most("cache_salt", "bytes", request.cache_salt.size(),
                                  config_.limits.max_cache_salt_bytes));
  RETURN_IF_ERROR(
      require_range<int64_t>("priority", request.priority, -kPriorityMax, kPriorityMax));
  RETURN_IF_ERROR(check_hold(request.cache_hold_s));
  SequenceSpec spec;
  spec.id = id;
  spec.submitted = Clock::now();
  spec.deadline = request.deadline;
  spec.priority = static_cast<int32_t>(request.priority);
  spec.cache_hold_s = request.cache_hold_s;
  RETURN_IF_ERROR(fill_sampling(request.sampling, spec));
  RETURN_IF_ERROR(fill_stop_ids(request.stop, spec));
  ASSIGN_OR_RETURN(spec.prompt, tokenize(request.prompt, request.add_special_tokens));
  RETURN_IF_ERROR(fill_lengths(request, spec));
  RETURN_IF_ERROR(fill_attention(request, spec));
  return spec;
}

OutputRules Intake::output_rules(const Request& request) {
  return {.stop_strings = request.stop.strings,
          .min_tokens = request.stop.min_tokens,
          .include_stop_string = request.stop.include_stop_string,
          .skip_special_tokens = request.skip_special_tokens};
}

absl::StatusOr<std::vector<int32_t>> Intake::tokenize(const Prompt& prompt,
                                                      bool add_special_tokens) const {
  if (const auto* ids = std::get_if<std::vector<int32_t>>(&prompt)) {
    RETURN_IF_ERROR(check_ids(*ids, "prompt"));
    return *ids;
  }
  models::RenderedChat rendered;
  const std::string* text = std::get_if<std::string>(&prompt);
  const bool is_chat = text == nullptr;
  const char* const field = is_chat ? "messages" : "prompt";
  if (is_chat) {
    ASSIGN_OR_RETURN(rendered, render(std::get<ChatPrompt>(prompt)));
    text = &rendered.text;
    if (config_.model.special_tokens_in_content) rendered.content.clear();
  }
  // Spares the tokeniser a text that cannot fit whatever its tokens are.
  if (text->size() / longest_token_bytes_ > static_cast<size_t>(limits_.max_model_len)) {
    return field_error(field,
                       absl::StrCat("prompt has ", text->size(), " bytes, more than ",
                                    limits_.max_model_len, " tokens (the context limit) can hold"));
  }
  auto ids = tokenizer_.encode(
      *text, {.add_special_tokens = add_special_tokens, .content = rendered.content});
  if (!ids.ok()) return about_field(ids.status(), field);
  RETURN_IF_ERROR(check_encoded(*ids, field));
  return *std::move(ids);
}

absl::StatusOr<models::RenderedChat> Intake::render(const ChatPrompt& chat) const {
  if (!chat_template_) {
    return field_error("messages", "messages: the model has no chat template; use a text prompt");
  }
  absl::StatusOr<models::RenderedChat> rendered =
      chat_template_->render({.messages_json = chat.messages_json,
                              .tools_json = chat.tools_json,
                              .template_kwargs_json = chat.template_kwargs_json});
  // What a template raises is about the conversation.
  if (!rendered.ok()) return about_field(rendered.status(), "messages");
  return rendered;
}

absl::Status Intake::check_ids(const std::vector<int32_t>& ids, const char* field) const {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < limits_.vocab_size) continue;
    return field_error(field,
                       absl::StrCat(field, "[", i, "] is ", ids[i], ", must be a token id in [0, ",
                                    limits_.vocab_size - 1, "]"));
  }
  return absl::OkStatus();
}

// A tokenizer may know added tokens that the model has no embedding for.
absl::Status Intake::check_encoded(const std::vector<int32_t>& ids, const char* field) const {
  for (const int32_t id : ids) {
    if (id < limits_.vocab_size) continue;
    return field_error(
        field, absl::StrCat(field, ": the text has '", absl::CEscape(tokenizer_.token_bytes(id)),
                            "', token ", id, " of the tokenizer; the model's tokens end at ",
                            limits_.vocab_size - 1));
  }
  return absl::OkStatus();
}

absl::Status Intake::check_hold(float hold_s) const {
  const auto longest = static_cast<float>(longest_cache_hold_s(config_.scheduler));
  if (hold_s > 0 && longest == 0) {
    return field_error("cache_hold_s", absl::StrCat("cache_hold_s is ", hold_s,
                                                    ", must be 0: this server holds no pages"));
  }
  return require_range("cache_hold_s", hold_s, 0.0f, longest);
}

absl::Status Intake::check_stop(const StopRules& stop) const {
  const RequestLimits& limits = config_.limits;
  RETURN_IF_ERROR(require_at_most("stop", "strings", stop.strings.size(), limits.max_stop_strings));
  for (size_t i = 0; i < stop.strings.size(); ++i) {
    const size_t bytes = stop.strings[i].size();
    const std::string name = absl::StrCat("stop[", i, "]");
    if (bytes == 0) return field_error("stop", name + " is empty");
    RETURN_IF_ERROR(require_at_most("stop", "bytes", bytes, limits.max_stop_bytes, name.c_str()));
  }
  RETURN_IF_ERROR(
      require_at_most("stop_token_ids", "ids", stop.token_ids.size(), limits.max_stop_token_ids));
  return check_ids(stop.token_ids, "stop_token_ids");
}

absl::Status Intake::fill_lengths(const Request& request, SequenceSpec& spec) const {
  const auto prompt = static_cast<int64_t>(spec.prompt.size());
  const int64_t limit = limits_.max_model_len;
  if (prompt == 0) {
    // Bytes that the vocabulary lacks are dropped: of a text nothing may be left.
    const auto* text = std::get_if<std::string>(&request.prompt);
    const bool is_dropped = text != nullptr && !text->empty();
    return field_error("prompt",
                       absl::StrCat("prompt has no tokens",
                                    is_dropped ? " (the vocabulary has none for its text)" : "",
                                    ", at least 1 is needed"));
  }
  if (prompt >= limit) {
    return field_error(
        "prompt", absl::StrCat("prompt has ", prompt, " tokens, at most ", limit - 1,
                               " fit into the context of ", limit, " with one token of output"));
  }
  const int64_t room = limit - prompt;
  const int64_t by_default = std::min(request.stop.default_max_tokens.value_or(room), room);
  const int64_t max_tokens = request.stop.max_tokens.value_or(by_default);
  if (max_tokens < 1 || max_tokens > room) {
    return field_error("max_tokens", absl::StrCat("max_tokens is ", max_tokens, ", must be in [1, ",
                                                  room, "]: the prompt has ", prompt,
                                                  " tokens and the context holds ", limit));
  }
  RETURN_IF_ERROR(require_range<int64_t>("min_tokens", request.stop.min_tokens, 0, max_tokens));
  spec.num_tokens_max = prompt + max_tokens;
  spec.num_tokens_min = prompt + request.stop.min_tokens;
  return absl::OkStatus();
}

absl::Status Intake::fill_sampling(const SamplingParams& sampling, SequenceSpec& spec) const {
  spec.sampling = {
      .temperature = sampling.temperature.value_or(defaults_.temperature.value_or(1.0f)),
      .top_p = sampling.top_p.value_or(defaults_.top_p.value_or(1.0f)),
      .min_p = sampling.min_p,
      .top_k = sampling.top_k.value_or(defaults_.top_k.value_or(0)),
      .seed = sampling.seed ? *sampling.seed : random_seed()};
  constexpr float kTinyTopP = 1e-6f;  // 0 would keep nothing
  RETURN_IF_ERROR(require_range("temperature", spec.sampling.temperature, 0.0f, 2.0f));
  RETURN_IF_ERROR(require_range("top_p", spec.sampling.top_p, kTinyTopP, 1.0f));
  RETURN_IF_ERROR(require_range("min_p", spec.sampling.min_p, 0.0f, 1.0f));
  return require_range<int32_t>("top_k", spec.sampling.top_k, 0, INT32_MAX);
}

absl::Status Intake::fill_stop_ids(const StopRules& stop, SequenceSpec& spec) const {
  spec.stop_ids = stop.token_ids;
  if (!stop.ignore_eos) {
    spec.stop_ids.insert(spec.stop_ids.end(), defaults_.eos_token_ids.begin(),
                         defaults_.eos_token_ids.end());
  }
  std::ranges::sort(spec.stop_ids);
  // Not ranges::unique: Clang 14, the fuzzers' compiler, cannot compile its subrange.
  spec.stop_ids.erase(std::unique(spec.stop_ids.begin(), spec.stop_ids.end()), spec.stop_ids.end());
  return require_at_most("stop_token_ids", "ids", spec.stop_ids.size(), kernels::kMaxBannedIds,
                         "stop_token_ids, with the model's ends of text,");
}

absl::Status Intake::fill_attention(const Request& request, SequenceSpec& spec) const {
  const PbsOptions& pbs = config_.pbs;
  const float threshold = request.sparse.threshold.value_or(pbs.params.threshold);
  RETURN_IF_ERROR(require_range("sparse_attention.threshold", threshold, pbs.threshold_min, 1.0f));
  const SparseMode mode = request.sparse.mode.value_or(pbs.mode);
  const bool is_long = std::cmp_greater_equal(spec.prompt.size(), pbs.min_tokens);
  spec.pbs = mode == SparseMode::kPbs || (mode == SparseMode::kAuto && is_long);
  spec.pbs_threshold = threshold;
  const bool shares_all = pbs.prefix_reuse == PrefixReuse::kAny;
  const std::string own = spec.pbs ? attention_signature(pbs, threshold) : "dense";
  const std::string made_by = shares_all ? "any" : own;
  spec.cache_root = CacheRoot{.made_by = made_by, .salt = request.cache_salt}.text();
  return absl::OkStatus();
}

}  // namespace pbserve::engine
