// Files that an operator names in the config, read whole.
#pragma once

#include <string>

#include "kernels/core/status.h"

namespace pbserve::server {

// Never waits: what is no regular file, a pipe, is refused, and what is larger than 4 MiB too.
// Errors begin with the path.
absl::StatusOr<std::string> read_text_file(const std::string& path);

}  // namespace pbserve::server
