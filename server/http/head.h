// From a parsed request head to an HttpRequest. Refuses what two servers behind each other could
// read in two ways (RFC 9112, sections 3.2 and 6): a body that one of them does not see would run
// as the next request. For the same reason a key may stand there once only.
#pragma once

#include <boost/beast/http/message.hpp>

#include "kernels/core/status.h"
#include "server/http/message.h"

namespace pbserve::server {

// kInvalidArgument names the header; the connection cannot be used again, because nobody can say
// where the next request begins. Leaves body, body_lease and has_body as they are.
absl::StatusOr<HttpRequest> read_head(const boost::beast::http::request_header<>& head);

}  // namespace pbserve::server
