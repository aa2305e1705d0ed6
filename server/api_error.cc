#include "server/api_error.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/request.h"

namespace pbserve::server {
namespace {

constexpr absl::string_view kHttpStatus = "pbserve/http_status";
// Set where the error arises. Not constexpr: gcc 12 does not take it for one beside UBSan's checks.
const absl::string_view kParam = engine::kFieldPayload;
// Longer than this nobody can foresee a queue.
constexpr double kLongestRetryS = 600;
constexpr absl::string_view kCode = "pbserve/code";
constexpr absl::string_view kAllow = "pbserve/allow";

std::string payload(const absl::Status& status, absl::string_view key) {
  const auto value = status.GetPayload(key);
  return value ? std::string(*value) : std::string();
}

absl::Status with(absl::Status status, absl::string_view key, absl::string_view value) {
  status.SetPayload(key, absl::Cord(value));
  return status;
}

absl::Status http_only(absl::StatusCode code, int http_status, absl::string_view message) {
  return with(absl::Status(code, message), kHttpStatus, absl::StrCat(http_status));
}

absl::string_view error_type(int http_status) {
  switch (http_status) {
    case 401:
      return "authentication_error";
    case 404:
    case 405:
      return "not_found_error";
    case 429:
      return "rate_limit_error";
    case 501:
      return "not_implemented_error";
    default:
      return http_status < 500 ? "invalid_request_error" : "server_error";
  }
}

// null rather than "" where there is nothing to say: clients test for it.
nlohmann::ordered_json text_or_null(const std::string& text) {
  return text.empty() ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(text);
}

}  // namespace

absl::Status invalid_field(absl::string_view param, absl::string_view message) {
  return with(absl::InvalidArgumentError(message), kParam, param);
}

absl::Status model_not_found(absl::string_view model) {
  absl::Status status = absl::NotFoundError(
      absl::StrCat("the model '", model, "' is not served here; see /v1/models"));
  return with(with(std::move(status), kCode, "model_not_found"), kParam, "model");
}

absl::Status invalid_api_key() {
  return with(absl::UnauthenticatedError("a valid API key is required, as 'Authorization: Bearer "
                                         "<key>' or 'x-api-key: <key>', the same if both are sent"),
              kCode, "invalid_api_key");
}

absl::Status key_limit(absl::string_view message) {
  return with(absl::ResourceExhaustedError(message), kCode, "key_limit");
}

absl::Status not_ready(double rest_s) {
  return with_retry_after(absl::UnavailableError("the server is shutting down"), rest_s);
}

absl::Status with_retry_after(absl::Status status, double seconds) {
  const auto whole = static_cast<int64_t>(std::ceil(std::clamp(seconds, 0.0, kLongestRetryS)));
  return with(std::move(status), engine::kRetryAfterPayload, absl::StrCat(whole));
}

absl::Status out_of_memory() {
  return with(http_only(absl::StatusCode::kResourceExhausted, 503,
                        "the server has no memory for this request: send less, or try again later"),
              kCode, "out_of_memory");
}

absl::Status unexpected_exception() {
  return absl::InternalError("an unexpected exception ended the request");
}

absl::Status buffers_full(absl::string_view what, int64_t limit_bytes) {
  absl::Status status = absl::ResourceExhaustedError(
      absl::StrCat(what, " finds no room: bodies, messages and unread responses take up ",
                   "server.max_buffered_bytes = ", limit_bytes, "; try again later"));
  return with(std::move(status), kCode, "buffers_full");
}

absl::Status contexts_full(absl::string_view message) {
  return with(absl::ResourceExhaustedError(message), kCode, "contexts_full");
}

absl::Status context_not_found(absl::string_view id) {
  absl::Status status =
      absl::NotFoundError(absl::StrCat("there is no context '", id.substr(0, kRepeatedBytesMax),
                                       "': it has expired or been deleted, or never was"));
  return with(with(std::move(status), kCode, "context_not_found"), kParam, "context");
}

absl::Status context_conflict(absl::string_view message) {
  return with(with(absl::AbortedError(message), kCode, "context_conflict"), kParam, "context");
}

absl::Status client_left() {
  return absl::CancelledError(
      "the client closed its sending side, which cancels the request: keep it open until the "
      "answer has been read");
}

absl::Status unknown_route(absl::string_view method, absl::string_view path) {
  return absl::NotFoundError(absl::StrCat(
      "no route for ", method, " ", path.substr(0, kRepeatedBytesMax), "; see /openapi.json"));
}

absl::Status method_not_allowed(absl::string_view method, absl::string_view path,
                                absl::string_view allowed) {
  return with(http_only(absl::StatusCode::kInvalidArgument, 405,
                        absl::StrCat(path, " does not take ", method, ": use ", allowed)),
              kAllow, allowed);
}

absl::Status unsupported_media_type(absl::string_view content_type) {
  return http_only(absl::StatusCode::kInvalidArgument, 415,
                   absl::StrCat("Content-Type '", content_type.substr(0, 100),
                                "' is not supported: send application/json"));
}

absl::Status body_too_large(int64_t limit_bytes) {
  return http_only(
      absl::StatusCode::kResourceExhausted, 413,
      absl::StrCat("the request body is larger than http.max_body_bytes = ", limit_bytes));
}

absl::Status headers_too_large(int64_t limit_bytes) {
  return http_only(
      absl::StatusCode::kResourceExhausted, 431,
      absl::StrCat("the request header is larger than http.max_header_bytes = ", limit_bytes));
}

absl::Status chunk_frame_too_large(int64_t limit_bytes) {
  return http_only(absl::StatusCode::kResourceExhausted, 431,
                   absl::StrCat("the extensions of a chunk, or the trailers, are larger than "
                                "http.max_header_bytes = ",
                                limit_bytes));
}

absl::Status body_not_taken(absl::string_view method, absl::string_view path) {
  return absl::InvalidArgumentError(
      absl::StrCat(method, " ", path.substr(0, kRepeatedBytesMax), " takes no body"));
}

absl::Status read_timeout(absl::string_view what, int64_t limit_s) {
  return http_only(absl::StatusCode::kDeadlineExceeded, 408,
                   absl::StrCat("the ", what, " did not arrive within ", limit_s, " s"));
}

int http_status(const absl::Status& status) {
  if (int value = 0; absl::SimpleAtoi(payload(status, kHttpStatus), &value)) return value;
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 200;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return 400;
    case absl::StatusCode::kUnauthenticated:
      return 401;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kAborted:
      return 409;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    case absl::StatusCode::kCancelled:
      return kClientClosedRequest;
    case absl::StatusCode::kUnimplemented:
      return 501;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kFailedPrecondition:
      return 503;
    case absl::StatusCode::kDeadlineExceeded:
      return 504;
    default:
      return 500;
  }
}

int retry_after_s(const absl::Status& status) {
  const int code = http_status(status);
  if (code != 429 && code != 503) return 0;
  int64_t seconds = 1;  // where nothing is known: what is short is given back at any moment
  (void)absl::SimpleAtoi(payload(status, engine::kRetryAfterPayload), &seconds);
  return static_cast<int>(std::clamp<int64_t>(seconds, 1, kLongestRetryS));
}

std::string to_error_body(const absl::Status& status) {
  const nlohmann::ordered_json body = {{"error",
                                        {{"message", std::string(status.message())},
                                         {"type", std::string(error_type(http_status(status)))},
                                         {"param", text_or_null(error_param(status))},
                                         {"code", text_or_null(payload(status, kCode))}}}};
  return body.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

HttpReply to_http_reply(const absl::Status& status) {
  HttpReply reply{.status = http_status(status), .body = to_error_body(status)};
  if (const int seconds = retry_after_s(status); seconds > 0) {
    reply.headers.emplace_back("Retry-After", absl::StrCat(seconds));
  }
  if (const std::string allowed = payload(status, kAllow); !allowed.empty()) {
    reply.headers.emplace_back("Allow", allowed);
  }
  if (reply.status == 401) reply.headers.emplace_back("WWW-Authenticate", "Bearer");
  return reply;
}

int grpc_code(const absl::Status& status) { return static_cast<int>(status.code()); }

std::string error_param(const absl::Status& status) { return payload(status, kParam); }

std::string error_reason(const absl::Status& status) {
  if (std::string code = payload(status, kCode); !code.empty()) return code;
  switch (http_status(status)) {
    case 401:
      return "unauthenticated";
    case 404:
    case 405:
      return "not_found";
    case 408:
      return "timeout";
    case 413:
    case 431:
      return "too_large";
    case 429:
      return "queue_full";
    case kClientClosedRequest:
      return "client_left";
    case 503:
      return "draining";
    default:
      return http_status(status) < 500 ? "invalid" : "internal";
  }
}

}  // namespace pbserve::server
