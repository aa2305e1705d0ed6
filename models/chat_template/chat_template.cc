#include "models/chat_template/chat_template.h"

#include <ctime>
#include <optional>
#include <utility>

#include "models/chat_template/chat_messages.h"
#include "models/chat_template/evaluator.h"
#include "models/chat_template/json_value.h"
#include "models/chat_template/parser.h"
#include "models/chat_template/roles.h"
#include "models/chat_template/template_files.h"
#include "models/field_error.h"

namespace pbserve::models {

using jinja::Block;
using jinja::Dict;
using jinja::Value;

namespace {

// The variables that transformers gives to a template. `tools` and `documents` are none, not
// undefined, when there are none.
absl::StatusOr<Dict> make_context(const ChatRequest& request, Value messages, Value tools,
                                  const Dict& special_tokens) {
  Dict context = special_tokens;
  context.set(Value("documents"), jinja::None{});
  if (!request.template_kwargs_json.empty()) {
    ASSIGN_OR_RETURN(const Value kwargs,
                     jinja::parse_json(request.template_kwargs_json, "chat_template_kwargs"));
    if (!kwargs.dict() && !kwargs.is_none()) {
      return field_error("chat_template_kwargs", "chat_template_kwargs is not an object");
    }
    for (const char* name : {"messages", "tools", "add_generation_prompt"}) {
      if (kwargs.dict() && kwargs.dict()->find(name)) {
        return field_error("chat_template_kwargs",
                           std::string("chat_template_kwargs may not hold '") + name + "'");
      }
    }
    if (kwargs.dict()) {
      for (const auto& [name, value] : kwargs.dict()->items()) context.set(name, value);
    }
  }
  context.set(Value("messages"), std::move(messages));
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

struct Template {
  Block block;
  jinja::Roles roles;
};

absl::StatusOr<jinja::MarkedText> run(const Block& block, const ChatRequest& request,
                                      const jinja::RenderLimits& limits, Value messages,
                                      Value tools, const Dict& special_tokens) {
  ASSIGN_OR_RETURN(const Dict context,
                   make_context(request, std::move(messages), std::move(tools), special_tokens));
  jinja::Runtime runtime(limits, std::time(nullptr));
  return jinja::Evaluator(runtime, context).render(block);
}

// Messages of a few words with their roles as they are: to find out which the template prints.
absl::StatusOr<jinja::MarkedText> run_probe(const Block& block, const ChatRequest& request,
                                            const Dict& special_tokens) {
  constexpr jinja::RenderLimits kLimits{.work_units = size_t{1} << 22};
  ASSIGN_OR_RETURN(Value messages, jinja::parse_messages(request.messages_json));
  ASSIGN_OR_RETURN(Value tools, jinja::parse_tools(request.tools_json));
  return run(block, request, kLimits, std::move(messages), std::move(tools), special_tokens);
}

absl::StatusOr<Template> make_template(const std::string& source, const Dict& special_tokens) {
  ASSIGN_OR_RETURN(Block block, jinja::parse_template(source));
  jinja::Roles roles(source, [&](const ChatRequest& request) {
    return run_probe(block, request, special_tokens);
  });
  return Template{.block = std::move(block), .roles = std::move(roles)};
}

}  // namespace

struct ChatTemplate::Impl {
  Template main;
  std::optional<Template> tool_use;  // for requests with tools
  Dict special_tokens;
};

absl::StatusOr<ChatTemplate> ChatTemplate::load(const std::string& folder) {
  ASSIGN_OR_RETURN(jinja::TemplateFiles files, jinja::read_template_files(folder));
  auto impl = std::make_unique<Impl>();
  impl->special_tokens = std::move(files.special_tokens);
  ASSIGN_OR_RETURN(impl->main, make_template(files.main, impl->special_tokens));
  if (files.tool_use) {
    ASSIGN_OR_RETURN(impl->tool_use, make_template(*files.tool_use, impl->special_tokens));
  }
  return ChatTemplate(std::move(impl));
}

absl::StatusOr<ChatTemplate> ChatTemplate::parse(const std::string& source,
                                                 const std::string& bos_token,
                                                 const std::string& eos_token) {
  auto impl = std::make_unique<Impl>();
  // transformers leaves a token that the model does not have undefined.
  if (!bos_token.empty()) impl->special_tokens.set(Value("bos_token"), Value(bos_token));
  if (!eos_token.empty()) impl->special_tokens.set(Value("eos_token"), Value(eos_token));
  ASSIGN_OR_RETURN(impl->main, make_template(source, impl->special_tokens));
  return ChatTemplate(std::move(impl));
}

ChatTemplate::ChatTemplate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

absl::StatusOr<RenderedChat> ChatTemplate::render(const ChatRequest& request) const {
  ASSIGN_OR_RETURN(Value messages, jinja::parse_messages(request.messages_json));
  ASSIGN_OR_RETURN(Value tools, jinja::parse_tools(request.tools_json));
  const Template& used = !tools.is_none() && impl_->tool_use ? *impl_->tool_use : impl_->main;
  ASSIGN_OR_RETURN(messages, used.roles.fit(messages));
  ASSIGN_OR_RETURN(const jinja::MarkedText text,
                   run(used.block, request, limits_for(request), std::move(messages),
                       std::move(tools), impl_->special_tokens));
  return RenderedChat{.text = text.bytes(), .content = text.content()};
}

}  // namespace pbserve::models
