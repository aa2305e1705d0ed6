// The version of the product and what this build of it was made from.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace pbserve::server {

struct BuildInfo {
  std::string version;  // from the top CMakeLists.txt
  std::string commit;   // with -dirty where files differ from it
  std::string date;     // UTC
  std::string cpu;      // architecture and -march
  std::string gpu;      // CUDA's version and architectures
};

const BuildInfo& build_info();

extern const absl::string_view kVersion;  // build_info().version

// Some lines for people: version, commit, date, backends.
std::string version_text();

}  // namespace pbserve::server
