// Conversations with the templates of real models: each text equals jinja2's, character by
// character. fixtures/conversations.json is made by make_conversations_fixture.py.

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "models/chat_template/chat_template.h"
#include "tests/models/tokenizer/tokenizer_fixtures.h"
#include "tests/support/temp_dir.h"

namespace pbserve::models {
namespace {

using Json = nlohmann::ordered_json;

const std::string kFixtures = PBSERVE_SOURCE_DIR "/tests/models/chat_template/fixtures";

ChatRequest request_of(const Json& conversation) {
  ChatRequest request;
  request.messages_json = conversation["messages"].dump();
  if (!conversation["tools"].is_null()) request.tools_json = conversation["tools"].dump();
  request.template_kwargs_json = conversation["kwargs"].dump();
  request.add_generation_prompt = conversation["add_generation_prompt"].get<bool>();
  return request;
}

// Renders all conversations and compares; `name` says which outcome of the fixture counts.
void expect_outcomes(const ChatTemplate& chat_template, const std::string& name) {
  std::ifstream file(kFixtures + "/conversations.json");
  const Json conversations = Json::parse(file);
  ASSERT_GE(conversations.size(), 50u);
  for (const Json& conversation : conversations) {
    SCOPED_TRACE(conversation["name"].get<std::string>());
    const auto text = chat_template.render(request_of(conversation));
    const Json& outcome = conversation["outcomes"][name];
    if (outcome.contains("error")) {
      EXPECT_EQ("TemplateError: " + std::string(text.status().message()),
                outcome["error"].get<std::string>());
      continue;
    }
    ASSERT_TRUE(text.ok()) << text.status();
    EXPECT_EQ(text->text, outcome["expected"].get<std::string>());
  }
}

TEST(ChatTemplateConversations, Demo) {
  const auto loaded = ChatTemplate::load(PBSERVE_SOURCE_DIR "/models/demo");
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  expect_outcomes(*loaded, "demo");
}

TEST(ChatTemplateConversations, Strict) {
  std::ifstream file(kFixtures + "/strict.jinja");
  std::stringstream source;
  source << file.rdbuf();
  const auto parsed = ChatTemplate::parse(source.str(), "<s>", "</s>");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  expect_outcomes(*parsed, "strict");
}

class RealTemplates : public testing::TestWithParam<const char*> {};

TEST_P(RealTemplates, EqualJinja2) {
  const test::TempDir dir;
  const auto folder = test::unpack_tokenizer(GetParam(), dir);
  if (!folder) GTEST_SKIP() << GetParam() << ".tar.xz is not in PBSERVE_TOKENIZERS";
  const auto loaded = ChatTemplate::load(*folder);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  expect_outcomes(*loaded, GetParam());
}

INSTANTIATE_TEST_SUITE_P(, RealTemplates, testing::Values("llama-3.1", "qwen3"),
                         [](const auto& test) {
                           return std::string(test.param) == "qwen3" ? "Qwen3" : "Llama31";
                         });

}  // namespace
}  // namespace pbserve::models
