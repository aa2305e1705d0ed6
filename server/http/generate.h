// The two generating routes over HTTP: whole answers and event streams, both given up as soon as
// the client leaves.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <memory>

#include "server/app.h"
#include "server/http/message.h"
#include "server/http/stream.h"
#include "server/open_request.h"
#include "server/openai/parse.h"

namespace pbserve::server {

struct GenerationExchange {
  HttpStream* stream;
  App* app;
  OpenAiApi api;
  HttpRequest request;
  std::shared_ptr<OpenRequest> open;
  bool keep_alive;
};

// Answers the request. False: the connection must be closed.
boost::asio::awaitable<bool> serve_generation(GenerationExchange exchange);

}  // namespace pbserve::server
