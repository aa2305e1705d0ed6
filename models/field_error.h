// Errors about a field of a request: its name, as the client wrote it, travels beside the message
// as a payload of the Status, for whoever answers the client.
#pragma once

#include <string_view>

#include "absl/strings/cord.h"
#include "kernels/core/status.h"

namespace pbserve::models {

inline constexpr char kFieldPayload[] = "pbserve/param";

inline absl::string_view as_absl(std::string_view text) { return {text.data(), text.size()}; }

// The same error, about `field` unless it is about one already. Other codes are nobody's field.
inline absl::Status about_field(absl::Status status, std::string_view field) {
  if (absl::IsInvalidArgument(status) && !status.GetPayload(kFieldPayload)) {
    status.SetPayload(kFieldPayload, absl::Cord(as_absl(field)));
  }
  return status;
}

// `field` is as "messages[2].role"; the message names it too.
inline absl::Status field_error(std::string_view field, std::string_view message) {
  return about_field(absl::InvalidArgumentError(as_absl(message)), field);
}

}  // namespace pbserve::models
