// What packages install beside the program, made from the flags as they are: a manual page and the
// completion of bash.
#pragma once

#include <string>

namespace CLI {
class App;
}  // namespace CLI

namespace pbserve::server {

// In the man macros of troff. Groups and flags as in --help; hidden flags are left out.
std::string man_page(const CLI::App& app);

// Completes the names of flags, files, and the values that a flag's help lists as "a | b | c".
std::string bash_completion(const CLI::App& app);

}  // namespace pbserve::server
