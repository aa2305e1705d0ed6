// Whole replies: under the request's id, and with a note in its record of how they went.
#pragma once

#include <boost/asio/awaitable.hpp>

#include "kernels/core/status.h"
#include "server/http/message.h"
#include "server/http/stream.h"
#include "server/open_request.h"

namespace pbserve::server {

// Both return false if the connection must be closed. What `open` says of the end must be there
// before; it becomes "the client left" if a good reply cannot be written.
boost::asio::awaitable<bool> write_answer(HttpStream* stream, OpenRequest* open, HttpReply reply,
                                          bool keep_alive);
boost::asio::awaitable<bool> write_error(HttpStream* stream, OpenRequest* open, absl::Status error,
                                         bool keep_alive);

}  // namespace pbserve::server
