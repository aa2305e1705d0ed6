// One connection from accept to close: request after request through key, route, body and handler.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>

#include "server/app.h"
#include "server/open_count.h"

namespace pbserve::server {

// What the connections of one server share.
struct ConnectionContext {
  App* app;
  OpenCount exchanges;  // requests whose answer is not complete
};

boost::asio::awaitable<void> serve_connection(boost::asio::ip::tcp::socket socket,
                                              ConnectionContext* context);

}  // namespace pbserve::server
