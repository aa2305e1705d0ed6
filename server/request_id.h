// Names of requests: from the client, or made here. They go into logs and headers, so their
// characters are few.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "kernels/core/status.h"

namespace pbserve::server {

// 1 to 128 of [A-Za-z0-9._:-].
absl::Status check_request_id(absl::string_view id);

// 24 random hexadecimal digits.
std::string make_request_id();

}  // namespace pbserve::server
