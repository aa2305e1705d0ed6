#include "server/json/builder.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace pbserve::server {
namespace {

constexpr int kNumberOverflow = 406;  // the library's number for it

// "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error while parsing
// value - invalid literal; last read: '<the text itself>'; expected ..."
absl::string_view without_quotation(absl::string_view what) {
  if (const size_t prefix = what.find("] "); prefix != absl::string_view::npos) {
    what.remove_prefix(prefix + 2);
  }
  return what.substr(0, what.find("; last read: "));
}

}  // namespace

Json* JsonBuilder::add(Json value) {
  if (open_.empty()) {
    *root_ = std::move(value);
    return root_;
  }
  if (!open_.back()->is_array()) {
    *member_ = std::move(value);
    return member_;
  }
  auto& items = open_.back()->get_ref<Json::array_t&>();
  items.push_back(std::move(value));
  return &items.back();
}

bool JsonBuilder::open(Json::value_t kind) {
  open_.push_back(add(Json(kind)));
  return true;
}

bool JsonBuilder::close() {
  open_.pop_back();
  return true;
}

bool JsonBuilder::null() { return add(nullptr) != nullptr; }
bool JsonBuilder::boolean(bool value) { return add(value) != nullptr; }
bool JsonBuilder::number_integer(number_integer_t value) { return add(value) != nullptr; }
bool JsonBuilder::number_unsigned(number_unsigned_t value) { return add(value) != nullptr; }
bool JsonBuilder::number_float(number_float_t value, const string_t&) {
  return add(value) != nullptr;
}
bool JsonBuilder::string(string_t& value) { return add(std::move(value)) != nullptr; }
bool JsonBuilder::binary(binary_t& value) { return add(std::move(value)) != nullptr; }

bool JsonBuilder::start_object(std::size_t) { return open(Json::value_t::object); }
bool JsonBuilder::start_array(std::size_t) { return open(Json::value_t::array); }
bool JsonBuilder::end_object() { return close(); }
bool JsonBuilder::end_array() { return close(); }

bool JsonBuilder::key(string_t& name) {
  member_ = &open_.back()->get_ref<Json::object_t&>()[name];
  release_json(member_);  // of a name that comes twice the last value counts, as in Python
  return true;
}

bool JsonBuilder::parse_error(std::size_t position, const std::string&,
                              const nlohmann::detail::exception& error) {
  problem_ = error.id == kNumberOverflow
                 ? absl::StrCat("a number beyond the range of double at byte ", position)
                 : std::string(without_quotation(error.what()));
  return false;
}

}  // namespace pbserve::server
