// An HTTP request and a complete reply as plain values: what routes read and write. Sockets and
// framing are stream.h's.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "server/byte_budget.h"
#include "server/caller.h"

namespace pbserve::server {

struct HttpRequest {
  std::string method;
  std::string path;                            // without host and query, which no route reads
  std::map<std::string, std::string> headers;  // names in lower case, the last value of each
  bool has_body = false;
  std::string body;
  Caller caller;                 // once its key has been checked
  ByteBudget::Lease body_lease;  // what the body holds of the shared budget
};

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpReply {
  int status = 200;  // 204 has no content type and no body
  std::string content_type = "application/json";
  std::string body = {};
  HttpHeaders headers = {};
};

inline std::string header_or_empty(const HttpRequest& request, const std::string& name) {
  const auto found = request.headers.find(name);
  return found == request.headers.end() ? std::string() : found->second;
}

}  // namespace pbserve::server
