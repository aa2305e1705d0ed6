// Small templates against jinja2: the same text, or an error where jinja2 raises one.
// fixtures/language.json is made by make_language_fixture.py.

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/models/chat_template/render_text.h"

namespace pbserve::models::jinja {
namespace {

using Json = nlohmann::ordered_json;

class ChatTemplateLanguage : public testing::Test {
 protected:
  void SetUp() override {
    setenv("TZ", "UTC", 1);  // strftime_now() shows local time
    tzset();
    std::ifstream file(PBSERVE_SOURCE_DIR "/tests/models/chat_template/fixtures/language.json");
    cases_ = Json::parse(file);
  }

  Json cases_;
};

TEST_F(ChatTemplateLanguage, EqualsJinja2) {
  size_t num_texts = 0;
  for (const Json& c : cases_) {
    if (!c.contains("expected")) continue;
    const auto text = render_text(c["source"].get<std::string>(), c["context"].dump());
    ++num_texts;
    if (!text.ok()) {
      ADD_FAILURE() << c["group"] << ": " << c["source"] << "\n" << text.status();
      continue;
    }
    EXPECT_EQ(*text, c["expected"].get<std::string>()) << c["source"];
  }
  EXPECT_GE(num_texts, 250u);
}

TEST_F(ChatTemplateLanguage, FailsWhereJinja2Fails) {
  size_t num_errors = 0;
  for (const Json& c : cases_) {
    if (!c.contains("error")) continue;
    const auto text = render_text(c["source"].get<std::string>(), c["context"].dump());
    EXPECT_FALSE(text.ok()) << c["source"] << " gives " << *text << ", jinja2: " << c["error"];
    ++num_errors;
  }
  EXPECT_GE(num_errors, 100u);
}

TEST_F(ChatTemplateLanguage, ErrorsNameTheLineButNotThoseRaisedByTheTemplate) {
  const auto failed = render_text("a\n{% if true %}\n{{ 1 / 0 }}\n{% endif %}");
  EXPECT_EQ(failed.status().message(), "chat template, line 3: division by zero");
  const auto raised = render_text("a\n{{ raise_exception('roles must alternate') }}");
  EXPECT_EQ(raised.status().message(), "roles must alternate");
}

}  // namespace
}  // namespace pbserve::models::jinja
