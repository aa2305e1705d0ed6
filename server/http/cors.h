// Which pages of other origins a browser lets read our answers (the Fetch standard's CORS), by
// server.cors_origins. Without that list no answer says a word of it. Keys travel in headers and
// not in cookies, so a page must know one in any case.
#pragma once

#include <optional>

#include "absl/strings/string_view.h"
#include "server/config/config.h"
#include "server/http/message.h"

namespace pbserve::server {

// What every answer to a request of this `origin` (the header's value, or empty) carries.
HttpHeaders cors_headers(const ServerOptions& options, absl::string_view origin);

// The answer to a browser's question whether it may send a request: 204 if the origin is allowed
// and the route exists. Nothing where `request` is no such question, or the answer is no: then it
// is a request as any other. It needs no key, because browsers send none with it.
std::optional<HttpReply> preflight_reply(const ServerOptions& options, const HttpRequest& request);

}  // namespace pbserve::server
