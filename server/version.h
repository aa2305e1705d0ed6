// The version of the product and what this build of it was made from.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace pbserve::server {

extern const absl::string_view kVersion;  // from the top CMakeLists.txt

// Some lines for people: version, commit, date, backends.
std::string version_text();

}  // namespace pbserve::server
