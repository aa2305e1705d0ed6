// The only place where a Status becomes an HTTP status with an OpenAI error body, or a gRPC code.
// Errors are absl::Status everywhere else; what HTTP alone knows (413, the field at fault) rides
// on the Status as payload, attached by the constructors below.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "kernels/core/status.h"
#include "server/http/message.h"

namespace pbserve::server {

// The status that nginx gave a client that left. Only a client that still reads will see it.
inline constexpr int kClientClosedRequest = 499;

// So many bytes of a client's own text, a name, a method or a path, errors and log lines repeat.
inline constexpr size_t kRepeatedBytesMax = 200;

// A request field is wrong; `param` is its name as the client wrote it, "messages[2].role".
absl::Status invalid_field(absl::string_view param, absl::string_view message);
absl::Status model_not_found(absl::string_view model);
absl::Status invalid_api_key();
// One API key has as much in flight as it may have.
absl::Status key_limit(absl::string_view message);
// While it drains, for `rest_s` seconds more: then another server may have taken its place.
absl::Status not_ready(double rest_s);
// `status` with a time after which another try is worthwhile; retry_after_s() rounds and bounds it.
absl::Status with_retry_after(absl::Status status, double seconds);
// std::bad_alloc, where it ends one request.
absl::Status out_of_memory();
// Any other exception that ends one request; its own text may quote the request.
absl::Status unexpected_exception();
// `what` finds no room in server.max_buffered_bytes.
absl::Status buffers_full(absl::string_view what, int64_t limit_bytes);
// There are as many contexts, or bytes of them, as there may be.
absl::Status contexts_full(absl::string_view message);
absl::Status context_not_found(absl::string_view id);
// A context is not in the state that the request needs: 409, ABORTED.
absl::Status context_conflict(absl::string_view message);
// The client ended its sending side before it had the answer.
absl::Status client_left();

// What only HTTP can get wrong.
absl::Status unknown_route(absl::string_view method, absl::string_view path);
absl::Status method_not_allowed(absl::string_view method, absl::string_view path,
                                absl::string_view allowed);
absl::Status unsupported_media_type(absl::string_view content_type);
absl::Status body_too_large(int64_t limit_bytes);
absl::Status headers_too_large(int64_t limit_bytes);
absl::Status chunk_frame_too_large(int64_t limit_bytes);
absl::Status body_not_taken(absl::string_view method, absl::string_view path);
absl::Status read_timeout(absl::string_view what, int64_t limit_s);

// The reply with {"error": {"message", "type", "param", "code"}}.
HttpReply to_http_reply(const absl::Status& status);
// The body alone, for an error in the middle of a stream.
std::string to_error_body(const absl::Status& status);
int http_status(const absl::Status& status);

// The numeric grpc::StatusCode.
int grpc_code(const absl::Status& status);
// The field at fault, or empty.
std::string error_param(const absl::Status& status);
// What is wrong in a word: the `code` of its body, else one that stands for its HTTP status.
std::string error_reason(const absl::Status& status);
// Whole seconds after which another try is worthwhile, from 1 to 600; 0 where none is.
int retry_after_s(const absl::Status& status);

}  // namespace pbserve::server
