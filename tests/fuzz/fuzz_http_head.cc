// Any bytes as what a connection sends: heads and bodies through the parser, whole and in pieces,
// as http/stream.cc drives it. Where one request ends and the next begins may not depend on how the
// bytes arrived, and a head that is taken may leave no doubt about it.
#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "kernels/core/check.h"
#include "server/api_error.h"
#include "server/http/head.h"
#include "server/http/routes.h"

namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
namespace server = pbserve::server;
using boost::system::error_code;

constexpr uint32_t kHeaderLimit = 512;
constexpr uint64_t kBodyLimit = 256;
constexpr int kRequestsMax = 16;

struct Request {
  std::string method;
  std::string path;
  std::string body;
  bool is_taken;
  bool operator==(const Request&) const = default;
};

// Two lengths, or one and a coding, are what smuggling is made of.
void check_taken(const http::request_header<>& head, const server::HttpRequest& request) {
  const size_t lengths = head.count(http::field::content_length);
  const size_t codings = head.count(http::field::transfer_encoding);
  pbserve::check(lengths + codings <= 1, "a head with two lengths is taken");
  pbserve::check(head.count(http::field::host) <= 1, "a head with two hosts is taken");
  pbserve::check(!request.path.empty() && !absl::StrContains(request.path, "?"), "a bad path");
  const auto route = server::find_route(request.method, request.path);
  if (!route.ok()) {
    const int status = server::http_status(route.status());
    pbserve::check(status == 404 || status == 405, "an unknown route is another error");
  }
}

// A connection whose bytes arrive in pieces of this size.
class Connection {
 public:
  Connection(absl::string_view text, size_t piece) : text_(text), piece_(piece) {}

  std::vector<Request> read_all() {
    std::vector<Request> requests;
    while (std::ssize(requests) < kRequestsMax && read_one(&requests) && !text_.empty()) {
    }
    return requests;
  }

  bool has_hit_limit() const { return has_hit_limit_; }

 private:
  using Parser = http::request_parser<http::string_body>;

  // False where the bytes end before `is_done`, or are none of HTTP.
  template <class IsDone>
  bool advance(Parser* parser, IsDone is_done) {
    while (!is_done()) {
      error_code error = http::error::need_more;
      if (num_arrived_ > 0) {
        const size_t used = parser->put(asio::buffer(text_.data(), num_arrived_), error);
        pbserve::check(used > 0 || error, "the parser stands still and says nothing");
        text_.remove_prefix(used);
        num_arrived_ -= used;
      }
      has_hit_limit_ = error == http::error::header_limit || error == http::error::body_limit;
      if (error && error != http::error::need_more) return false;
      if (!error) continue;
      const size_t more = std::min(piece_, text_.size() - num_arrived_);
      if (more == 0) return false;
      num_arrived_ += more;
    }
    return true;
  }

  bool read_one(std::vector<Request>* requests) {
    Parser parser;
    parser.header_limit(kHeaderLimit);
    parser.body_limit(kBodyLimit);
    if (!advance(&parser, [&] { return parser.is_header_done(); })) return false;
    const absl::StatusOr<server::HttpRequest> request = server::read_head(parser.get().base());
    if (!request.ok()) {
      pbserve::check(server::http_status(request.status()) == 400, "a bad head is another error");
      requests->push_back({"", "", "", false});
      return false;
    }
    check_taken(parser.get().base(), *request);
    parser.eager(true);
    if (!advance(&parser, [&] { return parser.is_done(); })) return false;
    pbserve::check(parser.get().body().size() <= kBodyLimit, "a body beyond its limit");
    requests->push_back({request->method, request->path, parser.get().body(), true});
    return true;
  }

  absl::string_view text_;  // not taken by the parser
  const size_t piece_;
  size_t num_arrived_ = 0;  // of it
  bool has_hit_limit_ = false;
};

// The parser counts a head against its limit as it arrives: near the limit, some ways of sending it
// are refused, which ends the connection, and others not. Beyond that all ways read the same.
void check_same(absl::string_view text, size_t piece, size_t other_piece) {
  Connection one(text, piece);
  Connection other(text, other_piece);
  std::vector<Request> read = one.read_all();
  std::vector<Request> other_read = other.read_all();
  if (one.has_hit_limit() || other.has_hit_limit()) {
    const size_t common = std::min(read.size(), other_read.size());
    read.resize(common);
    other_read.resize(common);
  }
  pbserve::check(read == other_read, "pieces read as other requests");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  check_same(text, size, 1);
  check_same(text, size, 7);
  return 0;
}
