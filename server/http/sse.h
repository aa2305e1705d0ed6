// Framing of server-sent events (WHATWG HTML, section 9.2). A payload is one line: JSON without
// raw line breaks.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace pbserve::server {

inline void append_sse_data(absl::string_view payload, std::string* sse) {
  sse->append("data: ").append(payload.data(), payload.size()).append("\n\n");
}

// A comment is an event of its own: some clients parse whole blocks between blank lines.
inline constexpr char kSseKeepAlive[] = ": keep-alive\n\n";

}  // namespace pbserve::server
