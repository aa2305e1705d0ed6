// The rules of this repository that a compiler does not see: who may include whom, how long files
// and functions are, which words do not stay. Each rule reads text and returns what breaks it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pbserve::tidy {

struct SourceFile {
  std::string path;  // from the root of the repository: "engine/engine.cc"
  std::string text;
};

struct Finding {
  std::string path;
  int line;  // from 1; 0 where it concerns the whole file
  std::string message;
};

// Includes go down: server -> engine -> models -> kernels/ops -> kernels/core, and third-party
// headers stay on the floor that owns them.
std::vector<Finding> check_includes(const SourceFile& file);

// Files, functions and lines that are too long.
std::vector<Finding> check_lengths(const SourceFile& file);

// Words that mark unfinished work, and paths of one machine.
std::vector<Finding> check_words(const SourceFile& file);

// Sources that no build compiles and headers that nobody includes. `build_text` is whatever names
// the sources: the CMakeLists.txt files and the compile database.
std::vector<Finding> check_dead_files(const std::vector<SourceFile>& files,
                                      std::string_view build_text);

// "engine/engine.h" and the like, in the order they stand in the file, with their lines.
struct Include {
  int line;
  std::string name;
  bool is_quoted;
};
std::vector<Include> read_includes(const SourceFile& file);

// The text with comments, literals and preprocessor lines blanked out; line breaks stay.
std::string strip_to_code(std::string_view text);

bool is_cpp(std::string_view path);  // .h .cc .cu .cuh

}  // namespace pbserve::tidy
