// The command line: flags under the names vLLM's users know, each an alias for a key of the
// config, and --set key.path=value for every key that has no flag.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "server/config/config.h"

namespace pbserve::server {

struct CommandLine {
  std::string config_file;
  std::vector<ConfigOverride> overrides;
};

struct CommandLineResult {
  std::optional<CommandLine> command_line;  // unset: exit with `exit_code` at once
  int exit_code = 0;                        // --help, --version or a wrong flag, already printed
};

CommandLineResult parse_command_line(int argc, const char* const* argv);

}  // namespace pbserve::server
