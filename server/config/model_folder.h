// A model that is not there, told before anything is loaded, and how to get it.
#pragma once

#include <string>

#include "kernels/core/status.h"

namespace pbserve::server {

// kNotFound says how to download what looks like a Hugging Face name; kInvalidArgument is a file.
absl::Status check_model_folder(const std::string& path);

}  // namespace pbserve::server
