// The values of a template: Python's, as far as templates can meet them. Immutable once shared,
// except namespaces; these live in the Runtime, so no cycle of owners can arise.
#pragma once

#include <concepts>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "kernels/core/status.h"
#include "models/chat_template/marked_text.h"

namespace pbserve::models::jinja {

struct BoundMethod;
struct Function;
struct MacroStatement;
class Dict;
class Loop;
class Namespace;
class Sequence;

// Prints as nothing, is false and empty; any other use is an error that says `why`.
struct Undefined {
  std::shared_ptr<const std::string> why;
};
struct None {};

class Value {
 public:
  using Data = std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<MarkedText>,
                            std::shared_ptr<const Sequence>, std::shared_ptr<const Dict>,
                            std::shared_ptr<Loop>, std::shared_ptr<const BoundMethod>, Namespace*,
                            const MacroStatement*, const Function*>;

  Value() = default;                                               // undefined
  Value(std::string text) : Value(MarkedText(std::move(text))) {}  // the template's
  Value(MarkedText text) : data_(std::make_shared<MarkedText>(std::move(text))) {}
  template <class T>
  requires(!std::same_as<std::remove_cvref_t<T>, Value> && std::constructible_from<Data, T&&>)
      Value(T&& data)
      : data_(std::forward<T>(data)) {}

  static Value undefined(std::string why);

  const Data& data() const { return data_; }
  template <class T>
  const T* get_if() const {
    return std::get_if<T>(&data_);
  }
  bool is_undefined() const { return get_if<Undefined>() != nullptr; }
  bool is_none() const { return get_if<None>() != nullptr; }
  // Of a string, else null: all of it, and its bytes alone.
  const MarkedText* text() const { return pointee<MarkedText>(); }
  const std::string* string() const { return text() ? &text()->bytes() : nullptr; }
  const Sequence* sequence() const { return pointee<const Sequence>(); }
  const Dict* dict() const { return pointee<const Dict>(); }
  // The string if no one else holds it: what is appended to it is seen by no one else.
  MarkedText* unshared_text();

 private:
  template <class T>
  T* pointee() const {
    const auto* pointer = get_if<std::shared_ptr<T>>();
    return pointer ? pointer->get() : nullptr;
  }

  Data data_;
};

enum class SequenceKind { kList, kTuple, kRange, kKeys, kValues, kItems, kIterator };

class Sequence {
 public:
  // Fails beyond kValueNestingMax.
  static absl::StatusOr<Value> make(SequenceKind kind, std::vector<Value> items);
  Sequence(SequenceKind kind, std::vector<Value> items, int nesting)
      : kind_(kind), items_(std::move(items)), nesting_(nesting) {}

  SequenceKind kind() const { return kind_; }
  const std::vector<Value>& items() const { return items_; }
  int nesting() const { return nesting_; }
  // Items [0, taken) of an iterator are gone: a Python iterator gives each item once.
  size_t taken() const { return taken_; }
  void take(size_t count) const { taken_ += kind_ == SequenceKind::kIterator ? count : 0; }

 private:
  SequenceKind kind_;
  std::vector<Value> items_;
  int nesting_;
  mutable size_t taken_ = 0;
};

// Keys are strings and keep the order of their first setting.
class Dict {
 public:
  using Item = std::pair<Value, Value>;

  void set(Value key, Value value);  // REQUIRES: key is a string; the dict is not shared yet
  const Value* find(std::string_view key) const;
  const std::vector<Item>& items() const { return items_; }
  int nesting() const { return nesting_; }

  // Shares the dict; fails beyond kValueNestingMax.
  static absl::StatusOr<Value> share(Dict dict);

 private:
  size_t position(std::string_view key) const;  // items_.size() if absent

  std::vector<Item> items_;
  std::unordered_map<std::string_view, size_t> index_;  // of the keys, once they are many
  int nesting_ = 1;
};

class Namespace {
 public:
  void set(const std::string& name, Value value) { members_[name] = std::move(value); }
  const Value* find(const std::string& name) const;

 private:
  std::unordered_map<std::string, Value> members_;
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

std::string_view type_name(const Value& value);  // Python's

// Numbers, with true as 1 and false as 0.
std::optional<int64_t> as_integer(const Value& value);
std::optional<double> as_double(const Value& value);

// Joins texts of any type that a string can be made from.
template <class... Parts>
std::string concat(const Parts&... parts) {
  std::string text;
  (text.append(std::string_view(parts)), ...);
  return text;
}

template <class... Parts>
absl::Status render_error(const Parts&... parts) {
  return absl::InvalidArgumentError(concat(parts...));
}

}  // namespace pbserve::models::jinja
