#include "server/json/builder.h"

#include <algorithm>
#include <numeric>
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

JsonBuilder::~JsonBuilder() {
  for (Level& level : open_) {
    for (auto& [name, value] : level.members) release_json(&value);
    for (Json& item : level.items) release_json(&item);
  }
  release_json(&root_);
}

// REQUIRES: `value` holds no other values: if there is no room for it, it is destroyed.
bool JsonBuilder::add(Json value) {
  if (open_.empty()) {
    root_ = std::move(value);
  } else if (Level& level = open_.back(); level.is_object) {
    level.members.emplace_back(std::move(level.name), std::move(value));
  } else {
    level.items.push_back(std::move(value));
  }
  return true;
}

Json* JsonBuilder::slot() {
  if (open_.empty()) return &root_;
  Level& level = open_.back();
  return level.is_object ? &level.members.back().second : &level.items.back();
}

bool JsonBuilder::open(bool is_object) {
  add(nullptr);
  open_.emplace_back().is_object = is_object;
  return true;
}

bool JsonBuilder::null() { return add(nullptr); }
bool JsonBuilder::boolean(bool value) { return add(value); }
bool JsonBuilder::number_integer(number_integer_t value) { return add(value); }
bool JsonBuilder::number_unsigned(number_unsigned_t value) { return add(value); }
bool JsonBuilder::number_float(number_float_t value, const string_t&) { return add(value); }
bool JsonBuilder::string(string_t& value) { return add(std::move(value)); }
bool JsonBuilder::binary(binary_t& value) { return add(std::move(value)); }

bool JsonBuilder::start_object(std::size_t) { return open(/*is_object=*/true); }
bool JsonBuilder::start_array(std::size_t) { return open(/*is_object=*/false); }

bool JsonBuilder::key(string_t& name) {
  open_.back().name = std::move(name);
  return true;
}

// As in Python: the first one's place, the last one's value. What goes becomes discarded.
void JsonBuilder::keep_last_of_equal_names(Level* level) {
  auto& members = level->members;
  order_.resize(members.size());
  std::iota(order_.begin(), order_.end(), 0U);
  std::sort(order_.begin(), order_.end(), [&members](uint32_t a, uint32_t b) {
    const int order = members[a].first.compare(members[b].first);
    return order != 0 ? order < 0 : a < b;
  });
  for (size_t first = 0, i = 1; i < order_.size(); ++i) {
    if (members[order_[i]].first != members[order_[first]].first) {
      first = i;
      continue;
    }
    std::swap(members[order_[first]].second, members[order_[i]].second);
    release_json(&members[order_[i]].second);
    members[order_[i]].second = Json(Json::value_t::discarded);
  }
}

bool JsonBuilder::end_object() {
  Level& level = open_.back();
  keep_last_of_equal_names(&level);
  Json object = Json::object();
  auto& members = object.get_ref<Json::object_t&>();
  members.reserve(level.members.size());  // nothing below this line needs memory
  for (auto& [name, value] : level.members) {
    if (!value.is_discarded()) members.emplace_back(std::move(name), std::move(value));
  }
  open_.pop_back();
  *slot() = std::move(object);
  return true;
}

bool JsonBuilder::end_array() {
  Json array = Json::array();
  array.get_ref<Json::array_t&>().swap(open_.back().items);
  open_.pop_back();
  *slot() = std::move(array);
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
