// Strings as Python sees them: UTF-8 in memory, counted and cut by code point, with Python's ideas
// of white space, line ends, letter case and printable characters. All input is valid UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pbserve::models::jinja {

bool is_valid_utf8(std::string_view text);

// Reads the code point at `*pos` and moves `*pos` behind it. REQUIRES: *pos < text.size().
char32_t next_code_point(std::string_view text, size_t* pos);
void append_utf8(char32_t code_point, std::string* out);

size_t count_code_points(std::string_view text);
// Byte offset of each code point, and the end: count_code_points() + 1 entries.
std::vector<size_t> code_point_offsets(std::string_view text);

bool is_space(char32_t code_point);
bool is_printable(char32_t code_point);

enum class Side { kLeft, kRight, kBoth };
// Removes white space, or the code points of `chars` if given.
std::string_view strip(std::string_view text, Side side,
                       std::optional<std::string_view> chars = std::nullopt);

// Both give views into `text`. At most `splits_max` cuts (negative: no limit), from the left or
// from the right. Without `separator`: at runs of white space, with no empty pieces.
std::vector<std::string_view> split(std::string_view text,
                                    std::optional<std::string_view> separator, int64_t splits_max,
                                    Side from);
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);

std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);
std::string capitalize(std::string_view text);
std::string title_case(std::string_view text);  // str.title(): a word is a run of letters

bool is_upper(std::string_view text);
bool is_lower(std::string_view text);
enum class CharClass { kAlpha, kDigit, kAlnum, kSpace };
// True if `text` is not empty and each of its code points is of the class.
bool all_of_class(std::string_view text, CharClass wanted);

}  // namespace pbserve::models::jinja
