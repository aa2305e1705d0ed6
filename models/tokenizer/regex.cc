#include "models/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <limits>

#include "kernels/core/check.h"
#include "models/message.h"
#include "models/tokenizer/regex_dialect.h"

namespace pbserve::models {
namespace {

constexpr size_t kPatternBytesMax = 64 * 1024;

std::string error_text(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

}  // namespace

Regex::Matcher::Matcher()
    : data_(pcre2_match_data_create(1, nullptr)), context_(pcre2_match_context_create(nullptr)) {
  check(data_ != nullptr && context_ != nullptr, "memory for a regex matcher");
  // Steps and depth grow with a run of one character: a megabyte of spaces must not hit a limit.
  // The pattern comes from the model's folder, so that it is trusted not to explode.
  constexpr uint32_t kNoLimit = std::numeric_limits<uint32_t>::max();
  pcre2_set_match_limit(context_, kNoLimit);
  pcre2_set_depth_limit(context_, kNoLimit);
}

Regex::Matcher::~Matcher() {
  pcre2_match_context_free(context_);
  pcre2_match_data_free(data_);
}

void Regex::FreeCode::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }

absl::StatusOr<Regex> Regex::compile(std::string_view pattern) {
  ASSIGN_OR_RETURN(const std::string translated, translate_regex(pattern));
  return build(translated, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE);
}

absl::StatusOr<Regex> Regex::literal(std::string_view text) {
  return build(text, PCRE2_UTF | PCRE2_LITERAL);
}

absl::StatusOr<Regex> Regex::build(std::string_view pattern, uint32_t options) {
  if (pattern.size() > kPatternBytesMax) {
    return invalid("regex of ", pattern.size(), " bytes, the limit is ", kPatternBytesMax);
  }
  int error = 0;
  size_t error_at = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   options, &error, &error_at, nullptr);
  if (code == nullptr) {
    return invalid("regex does not compile: ", error_text(error), " at byte ", error_at, " of ",
                   pattern);
  }
  Regex regex(code);
  // Without JIT (an exotic machine) pcre2_match interprets: slower, same matches.
  const int jit = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  if (jit != 0 && jit != PCRE2_ERROR_JIT_BADOPTION && jit != PCRE2_ERROR_NOMEMORY) {
    return absl::InternalError(message("regex JIT: ", error_text(jit)));
  }
  return regex;
}

absl::StatusOr<std::optional<Regex::Span>> Regex::find(std::string_view text, size_t from,
                                                       Matcher& matcher) const {
  const int result =
      pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                  PCRE2_NO_UTF_CHECK, matcher.data_, matcher.context_);
  if (result == PCRE2_ERROR_NOMATCH) return std::optional<Span>();
  if (result < 0) {
    return absl::ResourceExhaustedError(
        message("regex match at byte ", from, ": ", error_text(result)));
  }
  const size_t* range = pcre2_get_ovector_pointer(matcher.data_);
  return Span{range[0], range[1]};
}

}  // namespace pbserve::models
