// The table of routes, and the handlers of all that answer at once. Handlers are plain functions
// from request to reply; the two generating routes are generate.h's.
#pragma once

#include <optional>
#include <span>

#include "absl/strings/string_view.h"
#include "kernels/core/status.h"
#include "server/app.h"
#include "server/http/message.h"
#include "server/openai/parse.h"

namespace pbserve::server {

struct Route {
  using Handler = absl::StatusOr<HttpReply> (*)(App& app, const HttpRequest& request);

  absl::string_view method;
  absl::string_view path;  // "/v1/models/{id}": what {id} stands for is free
  bool is_open;            // needs no API key
  Handler handler;         // null for a generating route
  std::optional<OpenAiApi> generates;
};

std::span<const Route> routes();

// Whether it is there for what asks again and again: orchestrators, balancers, scrapers.
inline bool is_probe(const Route& route) { return route.is_open || route.path == "/metrics"; }

// HEAD finds the routes of GET. kNotFound or "method not allowed" where nothing matches.
absl::StatusOr<const Route*> find_route(absl::string_view method, absl::string_view path);
// The same among those of the admin port.
absl::StatusOr<const Route*> find_admin_route(absl::string_view method, absl::string_view path);

}  // namespace pbserve::server
