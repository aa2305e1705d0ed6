#include "tests/models/tokenizer/tokenizer_fixtures.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <nlohmann/json.hpp>
#include "models/tokenizer/stream_decoder.h"
#include "models/tokenizer/utf8.h"

namespace pbserve::test {
namespace {

using nlohmann::json;

json read_json(const std::string& file) {
  std::ifstream stream(fixture_path(file));
  check(stream.good(), "cannot open fixture " + file);
  return json::parse(stream);
}

std::string fnv1a(std::span<const int32_t> ids) {
  uint64_t value = 0xCBF29CE484222325;
  for (int32_t id : ids) {
    for (int shift = 0; shift < 32; shift += 8) {
      value = (value ^ (static_cast<uint32_t>(id) >> shift & 0xFF)) * 0x100000001B3;
    }
  }
  char text[17];
  std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(value));
  return text;
}

ExpectedIds read_ids(const json& value) {
  if (value.is_array()) return {value.get<std::vector<int32_t>>(), std::nullopt, {}};
  return {{}, value.at("count").get<size_t>(), value.at("fnv1a").get<std::string>()};
}

}  // namespace

std::optional<std::string> ExpectedIds::difference(std::span<const int32_t> actual) const {
  std::ostringstream text;
  if (count) {
    if (actual.size() == *count && test::fnv1a(actual) == fnv1a) return std::nullopt;
    text << actual.size() << " ids, hash " << test::fnv1a(actual) << "; expected " << *count
         << ", hash " << fnv1a;
    return text.str();
  }
  if (std::equal(actual.begin(), actual.end(), ids.begin(), ids.end())) return std::nullopt;
  text << "got";
  for (int32_t id : actual) text << ' ' << id;
  text << "; expected";
  for (int32_t id : ids) text << ' ' << id;
  return text.str();
}

std::string fixture_path(const std::string& file) {
  return std::string(PBSERVE_SOURCE_DIR) + "/tests/models/tokenizer/fixtures/" + file;
}

std::vector<std::string> read_fixture_strings() {
  std::vector<std::string> strings;
  for (const json& entry : read_json("strings.json")) {
    if (entry.is_string()) {
      strings.push_back(entry.get<std::string>());
      continue;
    }
    const std::string unit = entry.at("repeat").at(0).get<std::string>();
    const size_t count = entry.at("repeat").at(1).get<size_t>();
    std::string& run = strings.emplace_back();
    run.reserve(unit.size() * count);
    for (size_t i = 0; i < count; ++i) run += unit;
  }
  return strings;
}

TokenizerFixture read_fixture(const std::string& name) {
  const json root = read_json(name + ".json");
  TokenizerFixture fixture;
  for (const json& ids : root.at("ids")) {
    fixture.ids.push_back(ids.is_null() ? std::nullopt : std::optional(read_ids(ids)));
  }
  for (const json& entry : root.value("plain", json::array())) {
    fixture.plain[entry.at(0).get<size_t>()] = entry.at(1).get<std::vector<int32_t>>();
  }
  for (const json& entry : root.at("decoded")) {
    ExpectedText& text = fixture.decoded.emplace_back();
    text.ids = entry.at("ids").get<std::vector<int32_t>>();
    text.all = entry.at("all").get<std::string>();
    if (entry.contains("skip")) text.skip = entry.at("skip").get<std::string>();
  }
  return fixture;
}

std::optional<std::string> unpack_tokenizer(const std::string& name, const TempDir& dir) {
  const char* configured = std::getenv("PBSERVE_TOKENIZERS");
  const std::string folder = configured != nullptr
                                 ? configured
                                 : std::string(PBSERVE_SOURCE_DIR) + "/../shared/tokenizers";
  const std::string archive = folder + "/" + name + ".tar.xz";
  if (!std::filesystem::exists(archive)) return std::nullopt;
  const std::string command = "tar xJf '" + archive + "' -C '" + dir.path() + "'";
  check(std::system(command.c_str()) == 0, command + " fails");
  return dir.path() + "/" + name;
}

std::string decode_in_steps(const models::Tokenizer& tokenizer, std::span<const int32_t> ids,
                            bool skip_special_tokens) {
  models::StreamDecoder decoder(tokenizer, skip_special_tokens);
  std::string text;
  const auto append = [&](const std::string& piece) {
    EXPECT_EQ(models::find_invalid_utf8(piece), std::string::npos) << "a broken character";
    text += piece;
  };
  for (int32_t id : ids) append(decoder.push(id));
  append(decoder.finish());
  return text;
}

}  // namespace pbserve::test
