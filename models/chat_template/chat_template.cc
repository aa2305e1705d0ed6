#include "models/chat_template/chat_template.h"

#include <ctime>
#include <optional>
#include <utility>

#include "models/chat_template/chat_messages.h"
#include "models/chat_template/evaluator.h"
#include "models/chat_template/json_value.h"
#include "models/chat_template/parser.h"
#include "models/chat_template/template_files.h"

namespace pbserve::models {

using jinja::Block;
using jinja::Dict;
using jinja::Value;

struct ChatTemplate::Impl {
  Block main;
  std::optional<Block> tool_use;  // for requests with tools
  Dict special_tokens;
};

namespace {

// The variables that transformers gives to a template. `tools` and `documents` are none, not
// undefined, when there are none.
absl::StatusOr<Dict> make_context(const ChatRequest& request, const Dict& special_tokens) {
  Dict context = special_tokens;
  context.set(Value("documents"), jinja::None{});
  if (!request.template_kwargs_json.empty()) {
    ASSIGN_OR_RETURN(const Value kwargs,
                     jinja::parse_json(request.template_kwargs_json, "chat_template_kwargs"));
    if (!kwargs.dict() && !kwargs.is_none()) {
      return absl::InvalidArgumentError("chat_template_kwargs is not an object");
    }
    for (const char* name : {"messages", "tools", "add_generation_prompt"}) {
      if (kwargs.dict() && kwargs.dict()->find(name)) {
        return absl::InvalidArgumentError(std::string("chat_template_kwargs may not hold '") +
                                          name + "'");
      }
    }
    if (kwargs.dict()) {
      for (const auto& [name, value] : kwargs.dict()->items()) context.set(name, value);
    }
  }
  ASSIGN_OR_RETURN(Value messages, jinja::parse_messages(request.messages_json));
  context.set(Value("messages"), std::move(messages));
  ASSIGN_OR_RETURN(Value tools, jinja::parse_tools(request.tools_json));
  context.set(Value("tools"), std::move(tools));
  context.set(Value("add_generation_prompt"), Value(request.add_generation_prompt));
  return context;
}

// A template reads each byte of a conversation a few times, and prints it once or twice.
jinja::RenderLimits limits_for(const ChatRequest& request) {
  jinja::RenderLimits limits;
  limits.work_units += 64 * (request.messages_json.size() + request.tools_json.size() +
                             request.template_kwargs_json.size());
  return limits;
}

}  // namespace

absl::StatusOr<ChatTemplate> ChatTemplate::load(const std::string& folder) {
  ASSIGN_OR_RETURN(jinja::TemplateFiles files, jinja::read_template_files(folder));
  auto impl = std::make_unique<Impl>();
  ASSIGN_OR_RETURN(impl->main, jinja::parse_template(files.main));
  if (files.tool_use) {
    ASSIGN_OR_RETURN(impl->tool_use, jinja::parse_template(*files.tool_use));
  }
  impl->special_tokens = std::move(files.special_tokens);
  return ChatTemplate(std::move(impl));
}

absl::StatusOr<ChatTemplate> ChatTemplate::parse(const std::string& source,
                                                 const std::string& bos_token,
                                                 const std::string& eos_token) {
  auto impl = std::make_unique<Impl>();
  ASSIGN_OR_RETURN(impl->main, jinja::parse_template(source));
  // transformers leaves a token that the model does not have undefined.
  if (!bos_token.empty()) impl->special_tokens.set(Value("bos_token"), Value(bos_token));
  if (!eos_token.empty()) impl->special_tokens.set(Value("eos_token"), Value(eos_token));
  return ChatTemplate(std::move(impl));
}

ChatTemplate::ChatTemplate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

absl::StatusOr<RenderedChat> ChatTemplate::render(const ChatRequest& request) const {
  ASSIGN_OR_RETURN(const Dict context, make_context(request, impl_->special_tokens));
  const bool has_tools = !context.find("tools")->is_none();
  jinja::Runtime runtime(limits_for(request), std::time(nullptr));
  ASSIGN_OR_RETURN(const jinja::MarkedText text,
                   jinja::Evaluator(runtime, context)
                       .render(has_tools && impl_->tool_use ? *impl_->tool_use : impl_->main));
  return RenderedChat{.text = text.bytes(), .content = text.content()};
}

}  // namespace pbserve::models
