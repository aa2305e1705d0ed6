// The version of the product, from the top CMakeLists.txt.
#pragma once

#include "absl/strings/string_view.h"

namespace pbserve::server {

extern const absl::string_view kVersion;

}  // namespace pbserve::server
