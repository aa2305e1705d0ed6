#include "server/http/head.h"

#include <algorithm>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace pbserve::server {
namespace {

namespace http = boost::beast::http;
using Head = http::request_header<>;

constexpr unsigned kHttp11 = 11;

absl::string_view view(boost::beast::string_view text) { return {text.data(), text.size()}; }

absl::Status bad_header(absl::string_view name, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat("the header ", name, " ", problem));
}

// Section 6.1. Beast takes a coding that it does not know for "no body".
absl::Status check_transfer_encoding(const Head& head) {
  const size_t count = head.count(http::field::transfer_encoding);
  if (count == 0) return absl::OkStatus();
  constexpr absl::string_view kName = "Transfer-Encoding";
  if (head.version() < kHttp11) return bad_header(kName, "does not exist in HTTP/1.0");
  if (count > 1) return bad_header(kName, "must not be repeated");
  if (head.count(http::field::content_length) > 0) {
    return bad_header(kName, "must not stand beside Content-Length");
  }
  if (!absl::EqualsIgnoreCase(view(head[http::field::transfer_encoding]), "chunked")) {
    return bad_header(kName, "must be 'chunked', the one coding that is understood");
  }
  return absl::OkStatus();
}

// Section 6.3 lets a server take one value that is repeated; who repeats it is not honest.
absl::Status check_content_length(const Head& head) {
  const size_t count = head.count(http::field::content_length);
  if (count == 0) return absl::OkStatus();
  const absl::string_view value = view(head[http::field::content_length]);
  const bool is_number = !value.empty() && std::all_of(value.begin(), value.end(), [](char c) {
    return absl::ascii_isdigit(static_cast<unsigned char>(c));
  });
  if (count > 1 || !is_number) return bad_header("Content-Length", "must be one number");
  return absl::OkStatus();
}

// The characters of RFC 3986's host and port; an empty name is allowed.
bool is_host(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || absl::StrContains("-._~%!$&'()*+,;=:[]", c);
  });
}

// Section 3.2.
absl::Status check_host(const Head& head) {
  const size_t count = head.count(http::field::host);
  if (count > 1) return bad_header("Host", "must not be repeated");
  if (count == 0 && head.version() >= kHttp11) return bad_header("Host", "is missing");
  if (!is_host(view(head[http::field::host]))) return bad_header("Host", "is not a host name");
  return absl::OkStatus();
}

// Which of two a proxy before us has checked, nobody knows.
absl::Status check_credentials(const Head& head) {
  for (const char* name : {"Authorization", "x-api-key"}) {
    if (head.count(name) > 1) return bad_header(name, "must not be repeated");
  }
  return absl::OkStatus();
}

// What follows the authority of "http://host:port/path": section 3.2.2 obliges every server to take
// this form, which proxies are sent.
absl::string_view without_authority(absl::string_view target) {
  for (const absl::string_view scheme : {"http://", "https://"}) {
    if (!absl::StartsWithIgnoreCase(target, scheme)) continue;
    const size_t end = target.find_first_of("/?", scheme.size());
    return end == absl::string_view::npos ? "" : target.substr(end);
  }
  return target;
}

std::string path_of(absl::string_view target) {
  const absl::string_view rest = without_authority(target);
  const absl::string_view path = rest.substr(0, rest.find('?'));
  return path.empty() ? "/" : std::string(path);
}

}  // namespace

absl::StatusOr<HttpRequest> read_head(const Head& head) {
  RETURN_IF_ERROR(check_transfer_encoding(head));
  RETURN_IF_ERROR(check_content_length(head));
  RETURN_IF_ERROR(check_host(head));
  RETURN_IF_ERROR(check_credentials(head));
  HttpRequest request;
  request.method = std::string(head.method_string());
  request.path = path_of(view(head.target()));
  for (const auto& field : head) {
    request.headers[absl::AsciiStrToLower(view(field.name_string()))] = std::string(field.value());
  }
  return request;
}

}  // namespace pbserve::server
