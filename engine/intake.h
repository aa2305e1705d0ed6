// Intake: from a client's Request to a SequenceSpec: renders, tokenises, applies defaults, and
// refuses what breaks a limit, naming field, value and limit. Immutable; any thread may use it.
#pragma once

#include <memory>
#include <optional>

#include "engine/config.h"
#include "engine/output_stage.h"
#include "engine/sequence.h"
#include "models/chat_template/chat_template.h"
#include "models/config.h"
#include "models/tokenizer/tokenizer.h"

namespace pbserve::engine {

// What the limits of a request follow from, known once the model is loaded.
struct IntakeLimits {
  int64_t vocab_size = 0;
  int64_t max_model_len = 0;  // tokens of prompt and output together
};

class Intake {
 public:
  // `tokenizer` outlives the intake.
  Intake(const EngineConfig& config, const IntakeLimits& limits, const models::Tokenizer& tokenizer,
         std::optional<models::ChatTemplate> chat_template, models::GenerationDefaults defaults);

  absl::StatusOr<SequenceSpec> admit(const Request& request, SequenceId id) const;
  static OutputRules output_rules(const Request& request);

  absl::StatusOr<std::vector<int32_t>> tokenize(const Prompt& prompt,
                                                bool add_special_tokens) const;

 private:
  absl::StatusOr<models::RenderedChat> render(const ChatPrompt& chat) const;
  absl::Status check_ids(const std::vector<int32_t>& ids, const char* field) const;
  // The same of ids that the tokenizer made of a text: names the text, which is what was sent.
  absl::Status check_encoded(const std::vector<int32_t>& ids, const char* field) const;
  absl::Status check_stop(const StopRules& stop) const;
  absl::Status check_hold(float hold_s) const;
  absl::Status fill_lengths(const Request& request, SequenceSpec& spec) const;
  absl::Status fill_sampling(const SamplingParams& sampling, SequenceSpec& spec) const;
  absl::Status fill_stop_ids(const StopRules& stop, SequenceSpec& spec) const;
  absl::Status fill_attention(const Request& request, SequenceSpec& spec) const;

  EngineConfig config_;
  IntakeLimits limits_;
  const models::Tokenizer& tokenizer_;
  std::optional<models::ChatTemplate> chat_template_;
  models::GenerationDefaults defaults_;
  size_t longest_token_bytes_ = 1;
};

// One line that names everything a page's K/V depend on beside its tokens: pages are shared under
// equal lines only.
std::string attention_signature(const PbsOptions& pbs, float threshold);

}  // namespace pbserve::engine
