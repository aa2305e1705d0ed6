// No message is left out without a word: "developer" becomes "system" where the template does not
// name it, and a role that the template does not print is refused by name.

#include <gtest/gtest.h>

#include "models/chat_template/chat_template.h"

namespace pbserve::models {
namespace {

// As most published templates are: a chain of roles, the rest is left out.
const std::string kChain =
    "{% for m in messages %}"
    "{% if m.role == 'system' %}S:{{ m.content }};"
    "{% elif m.role == 'user' %}U:{{ m.content }};"
    "{% elif m.role == 'assistant' %}A:{{ m.content }};"
    "{% elif m.role == 'tool' %}T:{{ m.content }};"
    "{% endif %}{% endfor %}";

std::string render(const std::string& source, const std::string& messages) {
  const auto parsed = ChatTemplate::parse(source, "", "");
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  const auto chat = parsed->render({.messages_json = messages});
  return chat.ok() ? chat->text : "error: " + std::string(chat.status().message());
}

std::string message(const std::string& role, const std::string& content) {
  return R"({"role": ")" + role + R"(", "content": ")" + content + R"("})";
}

std::string conversation(const std::string& role) {
  return "[" + message(role, "x") + "," + message("user", "y") + "]";
}

TEST(ChatTemplateRoles, DeveloperIsSystemWhereTheTemplateDoesNotNameIt) {
  EXPECT_EQ(render(kChain, conversation("developer")), "S:x;U:y;");
  EXPECT_EQ(render(kChain, conversation("system")), "S:x;U:y;");
  // One that prints any role has still not been taught this one.
  const std::string any = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}";
  EXPECT_EQ(render(any, conversation("developer")), "<system>x<user>y");
}

TEST(ChatTemplateRoles, DeveloperStaysWhereTheTemplateNamesIt) {
  const std::string named =
      "{% for m in messages %}{% if m.role == 'developer' %}D:{{ m.content }};"
      "{% else %}{{ m.role }}:{{ m.content }};{% endif %}{% endfor %}";
  EXPECT_EQ(render(named, conversation("developer")), "D:x;user:y;");
}

TEST(ChatTemplateRoles, ATemplateWithoutSystemRefusesDeveloper) {
  const std::string bare =
      "{% for m in messages %}{% if m.role == 'user' %}U:{{ m.content }};"
      "{% elif m.role == 'assistant' %}A:{{ m.content }};{% endif %}{% endfor %}";
  EXPECT_EQ(render(bare, conversation("developer")),
            "error: messages[0].role is 'developer', must be one of user, assistant: the model's "
            "chat template leaves out a message of any other");
  EXPECT_EQ(render(bare, conversation("tool")),
            "error: messages[0].role is 'tool', must be one of user, assistant: the model's chat "
            "template leaves out a message of any other");
}

TEST(ChatTemplateRoles, WhatTheTemplateLeavesOutIsRefused) {
  const std::string left_out =
      ", must be one of system, user, assistant, tool: the model's chat template leaves out a "
      "message of any other";
  const std::string messages = "[" + message("user", "y") + "," + message("function", "z") + "]";
  EXPECT_EQ(render(kChain, messages), "error: messages[1].role is 'function'" + left_out);
  EXPECT_EQ(render(kChain, conversation("critic")),
            "error: messages[0].role is 'critic'" + left_out);
  EXPECT_EQ(render(kChain, conversation("tool")), "T:x;U:y;");
}

TEST(ChatTemplateRoles, WhatTheTemplatePrintsIsTaken) {
  const std::string any = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}";
  EXPECT_EQ(render(any, conversation("function")), "<function>x<user>y");
  EXPECT_EQ(render(any, conversation("critic")), "<critic>x<user>y");
}

TEST(ChatTemplateRoles, ANameThatTheTemplateKnowsIsTaken) {
  const std::string named =
      "{% for m in messages %}{% if m.role in ['user', 'ipython'] %}"
      "<{{ m.role }}>{{ m.content }}{% endif %}{% endfor %}";
  EXPECT_EQ(render(named, conversation("ipython")), "<ipython>x<user>y");
  EXPECT_EQ(render(named, conversation("critic")),
            "error: messages[0].role is 'critic', must be one of user: the model's chat template "
            "leaves out a message of any other");
}

// A result is printed behind its call alone, and turns alternate: the probes know such templates.
TEST(ChatTemplateRoles, RolesThatNeedTheirPlaceAreFound) {
  const std::string strict =
      "{% for m in messages %}"
      "{% if m.role == 'tool' %}"
      "{% if not messages[loop.index0 - 1].tool_calls or not tools %}"
      "{{ raise_exception('a result without a call') }}{% endif %}T:{{ m.content }};"
      "{% elif m.role == 'user' and loop.index0 % 2 == 1 %}{{ raise_exception('turns') }}"
      "{% else %}{{ m.role }}:{{ m.content }};{% endif %}{% endfor %}";
  EXPECT_EQ(render(strict, conversation("tool")), "error: a result without a call");
  EXPECT_EQ(render(strict, "[" + message("user", "a") + "," + message("user", "b") + "]"),
            "error: turns");
}

// The three that every client sends are the template's business: some drop an empty system message
// on purpose.
TEST(ChatTemplateRoles, TheTemplateDecidesAboutSystem) {
  const std::string without =
      "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}";
  EXPECT_EQ(render(without, conversation("system")), "y");
}

}  // namespace
}  // namespace pbserve::models
