#include "server/config/api_keys.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "server/config/text_file.h"

namespace pbserve::server {
namespace {

constexpr char kApiKeysVariable[] = "PBSERVE_API_KEYS";
constexpr size_t kNameBytesMax = 64;

bool is_name(absl::string_view text) {
  return !text.empty() && text.size() <= kNameBytesMax &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) {
           return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
         });
}

bool is_blank(unsigned char c) { return absl::ascii_isspace(c); }

absl::Status at(absl::string_view place, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat(place, ": ", problem));
}

// Adds a key, or its name to the same key.
absl::Status add(absl::string_view place, ApiKey added, std::vector<ApiKey>* keys) {
  const auto same = std::find_if(keys->begin(), keys->end(),
                                 [&](const ApiKey& known) { return known.key == added.key; });
  if (same == keys->end()) {
    keys->push_back(std::move(added));
  } else if (same->name.empty()) {
    same->name = std::move(added.name);
  } else if (!added.name.empty() && added.name != same->name) {
    return at(place,
              absl::StrCat("the key has a second name, ", added.name, " beside ", same->name));
  }
  return absl::OkStatus();
}

absl::Status add_text(absl::string_view place, absl::string_view text, std::vector<ApiKey>* keys) {
  absl::StatusOr<ApiKey> key = parse_api_key(text);
  if (!key.ok()) return at(place, key.status().message());
  return add(place, *std::move(key), keys);
}

// Adds the pieces that hold more than blanks and no comment.
absl::Status add_pieces(absl::string_view source, absl::string_view piece_name,
                        const std::vector<std::string>& pieces, std::vector<ApiKey>* keys) {
  bool has_key = false;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const absl::string_view text = absl::StripAsciiWhitespace(pieces[i]);
    if (text.empty() || text.front() == '#') continue;
    has_key = true;
    RETURN_IF_ERROR(add_text(absl::StrCat(source, ", ", piece_name, " ", i + 1), text, keys));
  }
  return has_key ? absl::OkStatus() : at(source, "holds no key");
}

absl::Status add_file(const std::string& file, std::vector<ApiKey>* keys) {
  const absl::StatusOr<std::string> text = read_text_file(file);
  if (!text.ok()) {
    return absl::Status(text.status().code(),
                        absl::StrCat("server.api_key_file = ", text.status().message()));
  }
  return add_pieces(absl::StrCat("server.api_key_file = ", file), "line",
                    absl::StrSplit(*text, '\n'), keys);
}

// Gives names to those that have none. Two lines of a log that mean different keys must differ.
absl::Status name_all(std::vector<ApiKey>* keys) {
  for (size_t i = 0; i < keys->size(); ++i) {
    std::string& name = (*keys)[i].name;
    if (name.empty()) name = absl::StrCat("key", i + 1);
  }
  for (auto key = keys->begin(); key != keys->end(); ++key) {
    const auto has_its_name = [key](const ApiKey& other) { return other.name == key->name; };
    if (std::find_if(keys->begin(), key, has_its_name) != key) {
      return at("API keys", absl::StrCat("two have the name ", key->name,
                                         " (a key without one is named by its position)"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ApiKey> parse_api_key(absl::string_view text) {
  const auto blank = std::find_if(text.begin(), text.end(), is_blank);
  const auto key_bytes = static_cast<size_t>(blank - text.begin());
  if (key_bytes == 0) return absl::InvalidArgumentError("a key must not be empty");
  if (key_bytes > kApiKeyBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("a key has ", key_bytes, " bytes, and must have at most ", kApiKeyBytesMax));
  }
  ApiKey key{.key = std::string(text.substr(0, key_bytes)), .name = {}};
  if (blank == text.end()) return key;
  absl::string_view name = absl::StripLeadingAsciiWhitespace(text.substr(key_bytes));
  if (!absl::ConsumePrefix(&name, "name=") || !is_name(name)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a key must hold no blanks; after it only name=NAME may stand, 1 to ",
                     kNameBytesMax, " of the characters A-Z a-z 0-9 . _ -"));
  }
  key.name = std::string(name);
  return key;
}

absl::StatusOr<std::vector<ApiKey>> read_api_keys(const std::vector<std::string>& entries,
                                                  const std::string& file) {
  std::vector<ApiKey> keys;
  for (const std::string& entry : entries) {
    RETURN_IF_ERROR(add_text("server.api_keys", entry, &keys));
  }
  if (!file.empty()) RETURN_IF_ERROR(add_file(file, &keys));
  const char* environment = std::getenv(kApiKeysVariable);
  if (environment != nullptr && *environment != '\0') {
    RETURN_IF_ERROR(add_pieces(kApiKeysVariable, "entry",
                               absl::StrSplit(environment, absl::ByAnyChar(",\n")), &keys));
  }
  RETURN_IF_ERROR(name_all(&keys));
  return keys;
}

}  // namespace pbserve::server
