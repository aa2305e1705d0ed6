// A compiled regular expression on PCRE2, JIT-compiled where the machine allows it. Immutable; each
// thread brings its own Matcher.
#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "kernels/core/status.h"

struct pcre2_real_code_8;
struct pcre2_real_match_data_8;
struct pcre2_real_match_context_8;

namespace pbserve::models {

class Regex {
 public:
  // Half-open byte range.
  struct Span {
    size_t begin;
    size_t end;
  };

  // What one thread needs to match; serves any number of expressions.
  class Matcher {
   public:
    Matcher();
    ~Matcher();
    Matcher(const Matcher&) = delete;
    Matcher& operator=(const Matcher&) = delete;

   private:
    friend class Regex;
    pcre2_real_match_data_8* data_;
    pcre2_real_match_context_8* context_;
  };

  // `pattern` in Oniguruma's dialect; see regex_dialect.h.
  static absl::StatusOr<Regex> compile(std::string_view pattern);
  // Matches `text` itself. REQUIRES: text is not empty.
  static absl::StatusOr<Regex> literal(std::string_view text);

  // The first match that begins at or after `from`; characters before `from` are seen by
  // lookbehind. REQUIRES: text is valid UTF-8 and `from` is on a character's edge.
  absl::StatusOr<std::optional<Span>> find(std::string_view text, size_t from,
                                           Matcher& matcher) const;

 private:
  struct FreeCode {
    void operator()(pcre2_real_code_8* code) const;
  };
  static absl::StatusOr<Regex> build(std::string_view pattern, uint32_t options);
  explicit Regex(pcre2_real_code_8* code) : code_(code) {}

  std::unique_ptr<pcre2_real_code_8, FreeCode> code_;
};

}  // namespace pbserve::models
