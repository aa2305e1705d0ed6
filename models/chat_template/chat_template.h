// Renders a conversation into the prompt its model was trained on, with the chat template of the
// model's own tokenizer_config.json (or chat_template.jinja). The template language is the subset
// of Jinja that model repositories use; anything outside it is an error at load, by name.
// Immutable after loading; any thread may use it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernels/core/status.h"
#include "models/text_span.h"

namespace pbserve::models {

struct ChatRequest {
  std::string messages_json{};         // the OpenAI `messages` array, as received
  std::string tools_json{};            // the OpenAI `tools` array, or empty
  std::string template_kwargs_json{};  // `chat_template_kwargs` object, or empty
  bool add_generation_prompt = true;
};

struct RenderedChat {
  std::string text{};
  // The parts of `text` that come from the request, in order and apart: no token that controls the
  // model may be read out of them. All else is the template's.
  std::vector<TextSpan> content{};
};

class ChatTemplate {
 public:
  // kNotFound if the folder has no template; kUnimplemented names the construct and its line.
  static absl::StatusOr<ChatTemplate> load(const std::string& folder);

  // `bos_token` and `eos_token` are what {{ bos_token }} and {{ eos_token }} print.
  static absl::StatusOr<ChatTemplate> parse(const std::string& source, const std::string& bos_token,
                                            const std::string& eos_token);

  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  // kInvalidArgument carries what raise_exception() said, or what is wrong with the messages.
  // Work and output are bounded: a template cannot loop forever or print without end.
  absl::StatusOr<RenderedChat> render(const ChatRequest& request) const;

 private:
  struct Impl;
  explicit ChatTemplate(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace pbserve::models
