// The chat interface: what is found in a model's folder, and what messages may look like.

#include "models/chat_template/chat_template.h"

#include <gtest/gtest.h>

#include <ctime>

#include "models/field_error.h"
#include "tests/support/temp_dir.h"

namespace pbserve::models {
namespace {

const std::string kUser = R"([{"role": "user", "content": "Hi"}])";

std::string render(const std::string& source, const ChatRequest& request) {
  const auto parsed = ChatTemplate::parse(source, "<s>", "</s>");
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  const auto text = parsed->render(request);
  return text.ok() ? text->text : "error: " + std::string(text.status().message());
}

std::string render_messages(const std::string& messages) {
  return render("{{ messages | tojson }}", {.messages_json = messages});
}

// The field of an error is its payload, in the words of the request.
TEST(ChatTemplateErrors, NameTheirFieldBesideTheMessage) {
  const auto parsed = ChatTemplate::parse("{{ messages[0].content }}", "", "");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const auto field = [&](const ChatRequest& request) {
    const auto payload = parsed->render(request).status().GetPayload(kFieldPayload);
    return payload ? std::string(*payload) : "(none)";
  };
  EXPECT_EQ(field({.messages_json = "[]"}), "messages");
  EXPECT_EQ(field({.messages_json = "{"}), "messages");
  EXPECT_EQ(field({.messages_json = R"([{"role": 5}])"}), "messages[0].role");
  EXPECT_EQ(field({.messages_json = R"([{"role": "user", "content": 5}])"}), "messages[0].content");
  EXPECT_EQ(field({.messages_json = kUser, .tools_json = "{}"}), "tools");
  EXPECT_EQ(field({.messages_json = kUser, .template_kwargs_json = "[]"}), "chat_template_kwargs");
}

TEST(ChatTemplate, GivesTheVariablesOfTransformers) {
  EXPECT_EQ(render("{{ bos_token }}{{ eos_token }}{{ unk_token is defined }}{{ tools }}"
                   "{{ documents }}{{ add_generation_prompt }}{{ x }}",
                   {.messages_json = kUser, .template_kwargs_json = R"({"x": [1]})"}),
            "<s></s>FalseNoneNoneTrue[1]");
  EXPECT_EQ(render("{{ tools | tojson }}{{ add_generation_prompt }}",
                   {.messages_json = kUser,
                    .tools_json = R"([{"b": 1, "a": 2.0}])",
                    .add_generation_prompt = false}),
            R"([{"b": 1, "a": 2.0}]False)");
}

TEST(ChatTemplate, ATokenThatTheModelLacksIsUndefined) {
  const auto parsed = ChatTemplate::parse("{{ bos_token is defined }}[{{ bos_token }}]", "", "");
  EXPECT_EQ(parsed->render({.messages_json = kUser})->text, "False[]");
}

TEST(ChatTemplate, ShowsToday) {
  const auto year = [] {
    const std::time_t now = std::time(nullptr);
    std::tm local{};
    localtime_r(&now, &local);
    return std::to_string(local.tm_year + 1900);
  };
  const std::string before = year();
  const std::string shown = render("{{ strftime_now('%Y') }}", {.messages_json = kUser});
  EXPECT_TRUE(shown == before || shown == year()) << shown;
}

TEST(ChatTemplate, KwargsAreCheckedAndMayReplaceTokens) {
  const auto with = [](const std::string& kwargs) {
    return render("{{ bos_token }}", {.messages_json = kUser, .template_kwargs_json = kwargs});
  };
  EXPECT_EQ(with(R"({"bos_token": "B"})"), "B");
  EXPECT_EQ(with("null"), "<s>");
  EXPECT_EQ(with("[]"), "error: chat_template_kwargs is not an object");
  EXPECT_EQ(with(R"({"messages": []})"), "error: chat_template_kwargs may not hold 'messages'");
  EXPECT_EQ(with(R"({"tools": []})"), "error: chat_template_kwargs may not hold 'tools'");
  EXPECT_EQ(with("{"),
            "error: chat_template_kwargs: parse error at line 1, column 2: syntax "
            "error while parsing object key - unexpected end of input; expected "
            "string literal");
}

TEST(ChatTemplateMessages, ContentBecomesOneText) {
  EXPECT_EQ(render_messages(R"([{"role": "user", "content": [{"type": "text", "text": "a"},
                                 {"type": "text", "text": "b"}]}])"),
            R"([{"role": "user", "content": "a\nb"}])");
  EXPECT_EQ(render_messages(R"([{"role": "assistant", "content": null, "x": 1}])"),
            R"([{"role": "assistant", "content": "", "x": 1}])");
  EXPECT_EQ(render_messages(R"([{"role": "assistant"}])"),
            R"([{"role": "assistant", "content": ""}])");
}

TEST(ChatTemplateMessages, ArgumentsBecomeObjects) {
  const auto arguments = [](const std::string& given) {
    return render("{{ messages[0].tool_calls[0].function.arguments | tojson }}",
                  {.messages_json = R"([{"role": "assistant", "tool_calls": [{"function": {)" +
                                    given + "}}]}]"});
  };
  EXPECT_EQ(arguments(R"("arguments": "{\"b\": 1, \"a\": [2]}")"), R"({"b": 1, "a": [2]})");
  EXPECT_EQ(arguments(R"("arguments": {"b": 1})"), R"({"b": 1})");
  EXPECT_EQ(arguments(R"("arguments": "")"), "{}");
  EXPECT_EQ(arguments(R"("arguments": null)"), "{}");
  EXPECT_EQ(arguments(""), "{}");
  EXPECT_EQ(arguments(R"("arguments": "[1]")"),
            "error: messages[0].tool_calls[0].function.arguments is a list, not an object");
  EXPECT_EQ(arguments(R"("arguments": "{")").substr(0, 66),
            "error: messages[0].tool_calls[0].function.arguments: parse error a");
}

TEST(ChatTemplateMessages, MalformedOnesAreNamed) {
  const std::pair<const char*, const char*> cases[] = {
      {"",
       "messages: parse error at line 1, column 1: syntax error while parsing value - "
       "unexpected end of input; expected '[', '{', or a literal"},
      {"{}", "messages is a dict, not a list"},
      {"[]", "messages is empty"},
      {"[1]", "messages[0] is a int, not an object"},
      {R"([{"role": "user", "content": "a"}, {"content": "a"}])",
       "messages[1].role is missing or no string"},
      {R"([{"role": 5}])", "messages[0].role is missing or no string"},
      {R"([{"role": "user", "content": 5}])",
       "messages[0].content is a int, not a string or a list"},
      {R"([{"role": "user", "content": ["a"]}])",
       "messages[0].content[0] is no object with a type"},
      {R"([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}])",
       "messages[0].content[0] has the type 'image_url'; only 'text' is supported"},
      {R"([{"role": "user", "content": [{"type": "text"}]}])",
       "messages[0].content[0].text is no string"},
      {R"([{"role": "assistant", "tool_calls": [5]}])", "messages[0].tool_calls[0] is no object"},
      {R"([{"role": "assistant", "tool_calls": [{"id": "x"}]}])",
       "messages[0].tool_calls[0].function is no object"}};
  for (const auto& [messages, error] : cases) {
    EXPECT_EQ(render_messages(messages), std::string("error: ") + error);
  }
  for (const char* invalid : {"[{\"role\": \"\xff\"}]", R"([{"role": "\ud800"}])"}) {
    EXPECT_EQ(render_messages(invalid).substr(0, 28), "error: messages: parse error");
  }
  EXPECT_EQ(render("x", {.messages_json = kUser, .tools_json = "[1]"}),
            "error: a tool is a int, not an object");
  EXPECT_EQ(render("x", {.messages_json = kUser, .tools_json = "{}"}),
            "error: tools is a dict, not a list");
}

class ChatTemplateFolder : public testing::Test {
 protected:
  std::string load_and_render(const ChatRequest& request = {.messages_json = kUser}) {
    const auto loaded = ChatTemplate::load(dir_.path());
    if (!loaded.ok()) return loaded.status().ToString();
    const auto text = loaded->render(request);
    return text.ok() ? text->text : text.status().ToString();
  }

  test::TempDir dir_;
};

TEST_F(ChatTemplateFolder, TokensAreStringsOrObjects) {
  dir_.write("tokenizer_config.json",
             R"({"bos_token": {"content": "<B>", "lstrip": false}, "eos_token": "<E>",
                 "pad_token": null, "model_max_length": 1000000000000000019884624838656,
                 "chat_template": "{{ bos_token }}{{ eos_token }}{{ pad_token is defined }}"})");
  EXPECT_EQ(load_and_render(), "<B><E>False");
}

TEST_F(ChatTemplateFolder, TheFileOfItsOwnComesFirst) {
  dir_.write("tokenizer_config.json", R"({"eos_token": "<E>", "chat_template": "config"})");
  EXPECT_EQ(load_and_render(), "config");
  dir_.write("chat_template.jinja", "file {{ eos_token }}\n");
  EXPECT_EQ(load_and_render(), "file <E>");
}

TEST_F(ChatTemplateFolder, NamedTemplates) {
  dir_.write("tokenizer_config.json", R"({"chat_template": [
      {"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]})");
  EXPECT_EQ(load_and_render(), "plain");
  EXPECT_EQ(load_and_render({.messages_json = kUser, .tools_json = "[{}]"}), "tools");
  dir_.write("tokenizer_config.json", R"({"chat_template": [
      {"name": "default", "template": "plain"}]})");
  EXPECT_EQ(load_and_render({.messages_json = kUser, .tools_json = "[{}]"}), "plain");
  dir_.write("tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": ""}]})");
  EXPECT_EQ(load_and_render(),
            "INVALID_ARGUMENT: tokenizer_config.json: chat_template has no entry named default");
}

TEST_F(ChatTemplateFolder, BrokenFoldersAreErrors) {
  EXPECT_EQ(ChatTemplate::load(dir_.path()).status().code(), absl::StatusCode::kNotFound);
  dir_.write("tokenizer_config.json", "{}");
  EXPECT_EQ(ChatTemplate::load(dir_.path()).status().code(), absl::StatusCode::kNotFound);
  for (const char* config : {"", "[]", "{\"chat_template\": 5}", "{\"chat_template\": [5]}",
                             "{\"chat_template\": ", "{\"bos_token\": 5, \"chat_template\": \"x\"}",
                             "{\"chat_template\": \"{{\"}"}) {
    dir_.write("tokenizer_config.json", config);
    EXPECT_EQ(ChatTemplate::load(dir_.path()).status().code(), absl::StatusCode::kInvalidArgument)
        << config;
  }
  dir_.write("tokenizer_config.json", R"({"chat_template": "\n{{ x | nonsense }}"})");
  EXPECT_EQ(load_and_render(),
            "UNIMPLEMENTED: chat template, line 2: not supported: filter 'nonsense'");
}

}  // namespace
}  // namespace pbserve::models
