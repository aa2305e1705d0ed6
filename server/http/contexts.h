// The routes of named contexts: /v1/contexts and below.
#pragma once

#include "kernels/core/status.h"
#include "server/app.h"
#include "server/http/message.h"

namespace pbserve::server {

absl::StatusOr<HttpReply> create_context(App& app, const HttpRequest& request);
absl::StatusOr<HttpReply> add_context_part(App& app, const HttpRequest& request);
absl::StatusOr<HttpReply> list_contexts(App& app, const HttpRequest& request);
absl::StatusOr<HttpReply> get_context(App& app, const HttpRequest& request);
absl::StatusOr<HttpReply> delete_context(App& app, const HttpRequest& request);

}  // namespace pbserve::server
