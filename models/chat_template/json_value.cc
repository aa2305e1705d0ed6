#include "models/chat_template/json_value.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "models/chat_template/limits.h"
#include "models/field_error.h"

namespace pbserve::models::jinja {
namespace {

using Json = nlohmann::json;

// Builds values straight from the parser's events: no second tree, no recursion, and the texts of
// numbers are at hand.
class Builder final : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return add(None{}); }
  bool boolean(bool flag) override { return add(flag); }
  bool number_integer(Json::number_integer_t number) override { return add(int64_t{number}); }
  bool number_unsigned(Json::number_unsigned_t number) override {
    if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return fail("the integer " + std::to_string(number) + " does not fit 64 bits");
    }
    return add(static_cast<int64_t>(number));
  }
  bool number_float(Json::number_float_t number, const std::string& text) override {
    if (text.find_first_of(".eE") == std::string::npos) {
      return fail("the integer " + text.substr(0, 40) + " does not fit 64 bits");
    }
    return add(double{number});
  }
  bool string(std::string& text) override { return add(MarkedText::content(std::move(text))); }
  bool binary(Json::binary_t&) override { return fail("binary values are not JSON"); }

  bool start_object(std::size_t) override { return open(true); }
  bool start_array(std::size_t) override { return open(false); }
  bool key(std::string& text) override {
    open_.back().key = Value(MarkedText::content(std::move(text)));
    return true;
  }
  bool end_object() override { return close(Dict::share(std::move(open_.back().dict))); }
  bool end_array() override {
    return close(Sequence::make(SequenceKind::kList, std::move(open_.back().items)));
  }
  bool parse_error(std::size_t, const std::string&, const Json::exception& error) override {
    const std::string_view text = error.what();  // "[json.exception.parse_error.101] ..."
    return fail(std::string(text.substr(std::min(text.find("] ") + 2, text.size()))));
  }

  const Value& result() const { return result_; }
  const std::string& error() const { return error_; }

 private:
  struct Open {
    bool is_dict;
    Value key;
    Dict dict;
    std::vector<Value> items;
  };

  bool fail(std::string error) {
    error_ = std::move(error);
    return false;
  }

  bool add(Value value) {
    if (open_.empty()) {
      result_ = std::move(value);
    } else if (open_.back().is_dict) {
      open_.back().dict.set(std::move(open_.back().key), std::move(value));
    } else {
      open_.back().items.push_back(std::move(value));
    }
    return true;
  }

  bool open(bool is_dict) {
    if (open_.size() >= static_cast<size_t>(kValueNestingMax)) {
      return fail("it is nested deeper than the limit of " + std::to_string(kValueNestingMax));
    }
    open_.push_back({.is_dict = is_dict, .key = {}, .dict = {}, .items = {}});
    return true;
  }

  bool close(absl::StatusOr<Value> value) {
    open_.pop_back();
    return value.ok() ? add(*std::move(value)) : fail(std::string(value.status().message()));
  }

  std::vector<Open> open_;
  Value result_;
  std::string error_;
};

}  // namespace

absl::StatusOr<Value> parse_json(const std::string& text, const std::string& what) {
  Builder builder;
  if (Json::sax_parse(text, &builder)) return builder.result();
  return field_error(what, what + ": " + builder.error());
}

}  // namespace pbserve::models::jinja
