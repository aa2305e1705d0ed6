// Keys and their names as they are written in a file, in a flag and in the environment.
#include "server/config/api_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "tests/support/temp_dir.h"

namespace pbserve::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// "key as name" of each, or the error.
std::vector<std::string> read(const std::vector<std::string>& entries,
                              const std::string& file = "") {
  const auto keys = read_api_keys(entries, file);
  if (!keys.ok()) return {std::string(keys.status().message())};
  std::vector<std::string> shown;
  for (const ApiKey& key : *keys) shown.push_back(key.key + " as " + key.name);
  return shown;
}

TEST(ApiKeys, WithoutANameTheyHaveTheirPositions) {
  EXPECT_THAT(read({"a", "b"}), ElementsAre("a as key1", "b as key2"));
  EXPECT_THAT(read({"a", "b name=bob", "c"}), ElementsAre("a as key1", "b as bob", "c as key3"));
}

// A key may hold all that separates names from values elsewhere.
TEST(ApiKeys, AKeyOfTodayStaysTheKeyItIs) {
  for (const char* key :
       {"alice:secret", "name=alice", "a=b", "a,b", "a;b", "sk-1#2", "\"a\"", "name:alice=b"}) {
    EXPECT_THAT(read({key}), ElementsAre(std::string(key) + " as key1"));
  }
}

TEST(ApiKeys, WhatIsNeitherAKeyNorANameIsRefused) {
  for (const char* text :
       {"secret alice", "secret name=", "secret name=a b", "secret name=a/b", "secret name:alice",
        "name=alice secret", "secret ", "secret\tx", "secret name=alice #c"}) {
    const auto shown = read({text});
    ASSERT_EQ(shown.size(), 1u);
    EXPECT_THAT(shown[0], HasSubstr("server.api_keys: a key must hold no blanks")) << text;
    EXPECT_THAT(shown[0], Not(HasSubstr("secret"))) << text;
  }
  EXPECT_THAT(read({"k name=" + std::string(64, 'n')})[0], HasSubstr("k as n"));
  EXPECT_THAT(read({"k name=" + std::string(65, 'n')})[0], HasSubstr("1 to 64 of"));
  EXPECT_THAT(read({" k"}), ElementsAre(HasSubstr("must not be empty")));
}

TEST(ApiKeys, AKeyHasABound) {
  const std::string longest(kApiKeyBytesMax, 'k');
  EXPECT_THAT(read({longest}), ElementsAre(longest + " as key1"));
  EXPECT_THAT(read({longest + "k name=x"}),
              ElementsAre("server.api_keys: a key has 513 bytes, and must have at most 512"));
}

TEST(ApiKeys, NamesAreUnique) {
  EXPECT_THAT(read({"a name=x", "b name=x"}), ElementsAre(HasSubstr("two have the name x")));
  EXPECT_THAT(read({"a name=key2", "b"}), ElementsAre(HasSubstr("two have the name key2")));
}

TEST(ApiKeys, AKeyThatComesTwiceIsOne) {
  EXPECT_THAT(read({"a", "b", "a"}), ElementsAre("a as key1", "b as key2"));
  EXPECT_THAT(read({"a", "a name=x"}), ElementsAre("a as x"));
  EXPECT_THAT(read({"a name=x", "a"}), ElementsAre("a as x"));
  EXPECT_THAT(read({"a name=x", "a name=y"}), ElementsAre(HasSubstr("a second name, y beside x")));
}

TEST(ApiKeys, AFileAndTheEnvironmentSayWhichLineIsWrong) {
  test::TempDir folder;
  const std::string path = folder.path() + "/keys";
  folder.write("keys", "# team\r\nfirst name=alice\r\n\n  second\tname=bob  \nthird\n");
  EXPECT_THAT(read({}, path), ElementsAre("first as alice", "second as bob", "third as key3"));
  folder.write("keys", "# team\nfirst\nsecret alice\n");
  EXPECT_THAT(read({}, path), ElementsAre(HasSubstr("keys, line 3: a key must hold no blanks")));
  ASSERT_EQ(setenv("PBSERVE_API_KEYS", "e name=env,f\n", 1), 0);
  EXPECT_THAT(read({"a"}), ElementsAre("a as key1", "e as env", "f as key3"));
  ASSERT_EQ(setenv("PBSERVE_API_KEYS", "e,f g", 1), 0);
  EXPECT_THAT(read({}), ElementsAre(HasSubstr("PBSERVE_API_KEYS, entry 2: a key must hold")));
  unsetenv("PBSERVE_API_KEYS");
}

}  // namespace
}  // namespace pbserve::server
