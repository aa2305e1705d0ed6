// Assertions for programmer errors: print the values and the caller's file:line, then abort.
// They stay on in release builds. What a client, a file or a machine can cause is a Status.
#pragma once

#include <sstream>
#include <string>
#include <string_view>

namespace pbserve {

// As std::source_location, which Clang 14 (the fuzzers' compiler) cannot compile.
struct Location {
  const char* file;
  int line;
  static constexpr Location current(const char* file = __builtin_FILE(),
                                    int line = __builtin_LINE()) {
    return {file, line};
  }
};

[[noreturn]] void die(std::string_view what, Location where = Location::current());

inline void check(bool ok, std::string_view what, Location where = Location::current()) {
  if (!ok) [[unlikely]]
    die(what, where);
}

// Dies with "what: a vs b" unless a == b.
template <class A, class B>
void check_eq(const A& a, const B& b, std::string_view what, Location where = Location::current()) {
  if (a == b) [[likely]]
    return;
  std::ostringstream text;
  text << what << ": " << a << " vs " << b;
  die(text.str(), where);
}

}  // namespace pbserve
