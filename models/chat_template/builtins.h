// The filters, tests, methods and functions that templates may use, found by name.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/chat_template/runtime.h"
#include "models/chat_template/value.h"

namespace pbserve::models::jinja {

struct Filter {
  std::string_view name;
  absl::StatusOr<Value> (*apply)(Runtime&, const Value& input, const Arguments&);
};
struct Test {
  std::string_view name;
  absl::StatusOr<bool> (*holds)(Runtime&, const Value& input, const Arguments&);
};
struct Function {
  std::string_view name;
  absl::StatusOr<Value> (*call)(Runtime&, const Arguments&);
};
enum class Receiver { kString, kDict, kList, kLoop };
struct Method {
  Receiver receiver;
  std::string_view name;
  absl::StatusOr<Value> (*call)(Runtime&, const Value& self, const Arguments&);
};
struct BoundMethod {
  const Method* method;
  Value self;
};

// Null if there is none of the name.
const Filter* find_filter(std::string_view name);
const Test* find_test(std::string_view name);
const Function* find_function(std::string_view name);
const Method* find_method(const Value& self, std::string_view name);

bool is_method_name(std::string_view name);  // of any type
// Python methods that change their list or dict: transformers' sandbox refuses them, and so do we.
bool is_mutator(const Value& self, std::string_view name);
bool is_mutator_name(std::string_view name);

// Arguments sorted to the parameters `names`.
class Bound {
 public:
  static absl::StatusOr<Bound> bind(const Arguments& arguments,
                                    std::initializer_list<std::string_view> names);

  const Value* at(size_t i) const { return slots_[i] ? &*slots_[i] : nullptr; }  // null: not given
  bool flag(size_t i, bool fallback = false) const;
  absl::StatusOr<int64_t> integer(size_t i, int64_t fallback) const;
  absl::StatusOr<std::string> text(size_t i) const;  // fails if it is not given or no string
  absl::StatusOr<std::optional<std::string>> optional_text(size_t i) const;  // not given, or none

 private:
  std::vector<std::string_view> names_;
  std::vector<std::optional<Value>> slots_;
};

}  // namespace pbserve::models::jinja
