// /v1/completions/render and /v1/chat/completions/render: what a request would become, without
// generating. Gateways that route by tokens, and clients that count them, ask for it.
#pragma once

#include "kernels/core/status.h"
#include "server/app.h"
#include "server/http/message.h"

namespace pbserve::server {

// The errors are those of the generating routes, but for full queues. Work grows with the prompt.
absl::StatusOr<HttpReply> render_completion(App& app, const HttpRequest& request);
absl::StatusOr<HttpReply> render_chat(App& app, const HttpRequest& request);

}  // namespace pbserve::server
