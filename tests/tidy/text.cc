// Rules about text: lengths of files, functions and lines, and words that do not stay.
#include <algorithm>

#include "tests/tidy/strings.h"
#include "tests/tidy/tidy.h"

namespace pbserve::tidy {
namespace {

constexpr int kFileLines = 400;
constexpr int kCudaFileLines = 700;
constexpr int kFunctionLines = 70;
constexpr int kKernelLines = 200;  // of a CUDA kernel
constexpr int kColumns = 100;

// Where `word` stands on its own, from `from` on; npos if nowhere.
size_t find_word(std::string_view line, std::string_view word, size_t from = 0) {
  for (size_t at = line.find(word, from); at != std::string_view::npos;
       at = line.find(word, at + 1)) {
    const size_t end = at + word.size();
    const bool starts = at == 0 || !is_word_char(line[at - 1]);
    if (starts && (end == line.size() || !is_word_char(line[end]))) return at;
  }
  return std::string_view::npos;
}

bool has_word(std::string_view line, std::string_view word) {
  return find_word(line, word) != std::string_view::npos;
}

// "struct alignas(64) Tile" declares a type; "template <class T> T max(T a)" does not.
bool declares_type(std::string_view header) {
  for (const std::string_view word : {"struct", "class", "enum", "union"}) {
    for (size_t at = find_word(header, word); at != std::string_view::npos;
         at = find_word(header, word, at + 1)) {
      const size_t before = header.find_last_not_of(" \n", at == 0 ? 0 : at - 1);
      if (at == 0 || (header[before] != '<' && header[before] != ',')) return true;
    }
  }
  return false;
}

// Does a brace after `header`, what stands between it and the last ';', '{' or '}', open the body
// of a function? Asked outside functions only, so control statements do not occur. Nothing at all
// stands before the body of a constructor whose initialisers use braces.
bool opens_function(std::string_view header) {
  header = without_leading_blanks(header);
  if (header.empty()) return true;
  const size_t parenthesis = header.find('(');
  if (parenthesis == std::string_view::npos) return false;
  const std::string_view before = header.substr(0, parenthesis);
  if (declares_type(before)) return false;
  return contains(before, "operator") || !contains(before, "=");
}

struct Block {
  int line;
  bool is_function;
};

std::vector<Finding> check_functions(const SourceFile& file) {
  const std::string code = strip_to_code(file.text);
  const bool is_cuda = file.path.ends_with(".cu") || file.path.ends_with(".cuh");
  const int limit = is_cuda ? kKernelLines : kFunctionLines;
  std::vector<Finding> findings;
  std::vector<Block> open;
  bool in_function = false;
  int line = 1;
  size_t header_begin = 0;
  for (size_t at = 0; at < code.size(); ++at) {
    const char c = code[at];
    if (c == '\n') ++line;
    if (c == '{') {
      const std::string_view header(&code[header_begin], at - header_begin);
      open.push_back({line, !in_function && opens_function(header)});
      in_function = in_function || open.back().is_function;
    } else if (c == '}' && !open.empty()) {
      const Block block = open.back();
      open.pop_back();
      const int length = line - block.line + 1;
      if (block.is_function) in_function = false;
      if (block.is_function && length >= limit) {
        findings.push_back(
            {file.path, block.line, concat("function of ", length, " lines; below ", limit)});
      }
    }
    if (c == '{' || c == '}' || c == ';') header_begin = at + 1;
  }
  return findings;
}

// Characters, not bytes: continuation bytes of UTF-8 take no column.
size_t num_columns(std::string_view line) {
  return static_cast<size_t>(
      std::count_if(line.begin(), line.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

// A note of open work carries the number of its issue, as in "(#12)".
bool has_issue_number(std::string_view line) {
  const size_t at = line.find("(#");
  return at != std::string_view::npos && at + 2 < line.size() && line[at + 2] >= '0' &&
         line[at + 2] <= '9';
}

}  // namespace

std::vector<Finding> check_lengths(const SourceFile& file) {
  std::vector<Finding> findings;
  const std::vector<std::string_view> lines = split_lines(file.text);
  const int limit = file.path.starts_with("kernels/cuda/") ? kCudaFileLines : kFileLines;
  const int num_lines = static_cast<int>(lines.size()) - (lines.back().empty() ? 1 : 0);
  if (num_lines >= limit) {
    findings.push_back({file.path, 0, concat(num_lines, " lines; below ", limit)});
  }
  for (size_t i = 0; i < lines.size(); ++i) {
    if (const size_t columns = num_columns(lines[i]); columns > kColumns) {
      findings.push_back(
          {file.path, static_cast<int>(i) + 1, concat(columns, " columns; at most ", kColumns)});
    }
  }
  if (is_cpp(file.path)) {
    const std::vector<Finding> functions = check_functions(file);
    findings.insert(findings.end(), functions.begin(), functions.end());
  }
  return findings;
}

std::vector<Finding> check_words(const SourceFile& file) {
  // Each in two pieces, so that this file passes its own rule.
  static const std::vector<std::string> kWords = {concat("FIX", "ME"), concat("XX", "X"),
                                                  concat("HA", "CK")};
  static const std::vector<std::string> kPhrases = {concat("for", " now"), concat("For", " now"),
                                                    concat("/wo", "rk/")};
  static const std::string kOpenWork = concat("TO", "DO");
  std::vector<Finding> findings;
  int number = 0;
  for (const std::string_view line : split_lines(file.text)) {
    ++number;
    for (const std::string& word : kWords) {
      if (has_word(line, word)) findings.push_back({file.path, number, word});
    }
    for (const std::string& phrase : kPhrases) {
      if (contains(line, phrase)) {
        findings.push_back({file.path, number, concat("'", phrase, "'")});
      }
    }
    if (has_word(line, kOpenWork) && !has_issue_number(line)) {
      findings.push_back({file.path, number, concat(kOpenWork, " without an issue number")});
    }
  }
  return findings;
}

}  // namespace pbserve::tidy
