// Between the messages of proto/inference.proto and the engine's values. No calls, no threads.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "engine/engine.h"
#include "engine/request.h"
#include "kernels/core/status.h"
#include "proto/inference.pb.h"
#include "server/contexts/context.h"
#include "server/json/body.h"
#include "server/response_channel.h"

namespace pbserve::server {

// The request without its deadline, which is the call's. `request_id` where the message has none.
absl::StatusOr<engine::Request> from_proto(const v1::GenerateRequest& message,
                                           const JsonLimits& limits, std::string request_id);
absl::StatusOr<ContextHeader> from_proto(const v1::ContextHeader& message);
absl::StatusOr<engine::Prompt> prompt_from_proto(const v1::TokenizeRequest& message,
                                                 const JsonLimits& limits);

// Lists are as long as JSON's may be: limits.max_values entries.
absl::Status check_count(absl::string_view field, int64_t count, const JsonLimits& limits);

// REQUIRES: a Completion is a successful one; errors are statuses of the call.
v1::GenerateEvent to_proto(const ResponseEvent& event, const std::string& request_id);
void fill(const engine::EngineInfo& info, v1::GetServerInfoResponse* message);

// google.rpc.Status with BadRequest and RetryInfo, serialised.
std::string error_details(const absl::Status& status);

}  // namespace pbserve::server
