#include "server/http/cors.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "server/http/routes.h"

namespace pbserve::server {
namespace {

constexpr char kAny[] = "*";
constexpr char kExposed[] = "X-Request-Id, Retry-After";
constexpr char kMaxAgeS[] = "600";  // browsers ask again after this; none trusts longer than hours

bool holds(const std::vector<std::string>& list, absl::string_view item) {
  return std::find(list.begin(), list.end(), item) != list.end();
}

bool is_allowed(const ServerOptions& options, absl::string_view origin) {
  if (origin.empty()) return false;
  return holds(options.cors_origins, kAny) || holds(options.cors_origins, origin);
}

// Names of headers with commas between them: it goes back as it came.
bool is_header_list(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == ',' || c == ' ';
  });
}

}  // namespace

HttpHeaders cors_headers(const ServerOptions& options, absl::string_view origin) {
  if (options.cors_origins.empty()) return {};
  HttpHeaders headers;
  const bool allows_any = holds(options.cors_origins, kAny);
  // Also without an origin, or a cache would give one page what was said to another.
  if (!allows_any) headers.emplace_back("Vary", "Origin");
  if (!is_allowed(options, origin)) return headers;
  headers.emplace_back("Access-Control-Allow-Origin", allows_any ? kAny : std::string(origin));
  if (options.cors_credentials) headers.emplace_back("Access-Control-Allow-Credentials", "true");
  headers.emplace_back("Access-Control-Expose-Headers", kExposed);
  return headers;
}

std::optional<HttpReply> preflight_reply(const ServerOptions& options, const HttpRequest& request) {
  const std::string method = header_or_empty(request, "access-control-request-method");
  if (request.method != "OPTIONS" || method.empty()) return std::nullopt;
  if (!is_allowed(options, header_or_empty(request, "origin"))) return std::nullopt;
  if (!find_route(method, request.path).ok()) return std::nullopt;
  HttpReply reply{.status = 204, .content_type = ""};
  reply.headers = {{"Access-Control-Allow-Methods", method}, {"Access-Control-Max-Age", kMaxAgeS}};
  // All that is asked for: none of them makes a request dangerous that has to bring a key.
  const std::string names = header_or_empty(request, "access-control-request-headers");
  if (!names.empty() && is_header_list(names)) {
    reply.headers.emplace_back("Access-Control-Allow-Headers", names);
  }
  return reply;
}

}  // namespace pbserve::server
