// API keys against what requests bring, and who that makes them.
#include "server/auth.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

namespace pbserve::server {
namespace {

const std::vector<ApiKey> kKeys = {{"first", "alice"}, {"second", "key2"}};

// The name of the key, or "(refused)".
std::string caller_of(const Auth& auth, const Credentials& given) {
  Caller caller;
  const absl::Status status = auth.check(given, &caller);
  if (status.ok()) return caller.key_name;
  EXPECT_EQ(status.code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(caller.key_name, "");
  return "(refused)";
}

TEST(Auth, NoKeysLetEverybodyIn) {
  EXPECT_EQ(caller_of(Auth({}), {}), "");
  EXPECT_EQ(caller_of(Auth({}), {"Bearer first", "second"}), "");
}

TEST(Auth, KeysAreComparedWhole) {
  const Auth auth(kKeys);
  EXPECT_EQ(caller_of(auth, {"Bearer first", ""}), "alice");
  EXPECT_EQ(caller_of(auth, {"bearer second", ""}), "key2");
  for (const char* wrong :
       {"", "Bearer", "Bearer ", "Bearer firs", "Bearer firstx", "Bearer  first", "Bearer first ",
        "Basic first", "first", "Bearer FIRST"}) {
    EXPECT_EQ(caller_of(auth, {wrong, ""}), "(refused)") << wrong;
  }
}

TEST(Auth, TheLongestKeyIsTakenAndAnyLongerOneRefused) {
  const std::string longest(kApiKeyBytesMax, 'k');
  const Auth auth({{"k", "short"}, {longest, "long"}});
  EXPECT_EQ(caller_of(auth, {"", longest}), "long");
  EXPECT_EQ(caller_of(auth, {"", "k"}), "short");
  EXPECT_EQ(caller_of(auth, {"", longest + "k"}), "(refused)");
  EXPECT_EQ(caller_of(auth, {"", std::string("k\0", 2)}), "(refused)");
  // A header of the largest size, against as many keys as may be, costs next to nothing.
  const Auth many(std::vector<ApiKey>(1000, {"first", "alice"}));
  const std::string huge(16 << 20, 'k');
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(caller_of(many, {"", huge}), "(refused)");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(1));
}

TEST(Auth, XApiKeyIsTheSameKey) {
  const Auth auth(kKeys);
  EXPECT_EQ(caller_of(auth, {"", "first"}), "alice");
  EXPECT_EQ(caller_of(auth, {"", "Bearer first"}), "(refused)");
  EXPECT_EQ(caller_of(auth, {"", "firs"}), "(refused)");
}

TEST(Auth, TwoHeadersMustAgree) {
  const Auth auth(kKeys);
  EXPECT_EQ(caller_of(auth, {"Bearer first", "first"}), "alice");
  EXPECT_EQ(caller_of(auth, {"Bearer first", "second"}), "(refused)");
  EXPECT_EQ(caller_of(auth, {"Bearer wrong", "first"}), "(refused)");
  EXPECT_EQ(caller_of(auth, {"Bearer first", "wrong"}), "(refused)");
  EXPECT_EQ(caller_of(auth, {"Bearer ", "first"}), "(refused)");
  EXPECT_EQ(caller_of(auth, {"Basic first", "first"}), "(refused)");
}

TEST(Auth, ReplacedKeysCountAtOnce) {
  Auth auth(kKeys);
  auth.replace({{"third", "carol"}});
  EXPECT_EQ(caller_of(auth, {"Bearer first", ""}), "(refused)");
  EXPECT_EQ(caller_of(auth, {"Bearer third", ""}), "carol");
}

// Else a reload would be a way around the limits.
TEST(Auth, WhatAKeyHasInFlightStaysWithItWhenKeysAreReplaced) {
  Auth auth(kKeys, {.max_requests = 1});
  Caller alice;
  ASSERT_TRUE(auth.check({"Bearer first", ""}, &alice).ok());
  KeySlot slot;
  ASSERT_TRUE(slot.take(alice.key_use).ok());
  auth.replace({{"new", "carol"}, {"first", "renamed"}});
  Caller renamed;
  ASSERT_TRUE(auth.check({"Bearer first", ""}, &renamed).ok());
  EXPECT_EQ(renamed.key_name, "renamed");
  EXPECT_EQ(KeySlot().take(renamed.key_use).code(), absl::StatusCode::kResourceExhausted);
  Caller carol;
  ASSERT_TRUE(auth.check({"Bearer new", ""}, &carol).ok());
  EXPECT_TRUE(KeySlot().take(carol.key_use).ok());
  slot.give_back();
  EXPECT_TRUE(KeySlot().take(renamed.key_use).ok());
}

}  // namespace
}  // namespace pbserve::server
