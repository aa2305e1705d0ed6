#include "server/http/answer.h"

#include <utility>

#include "server/api_error.h"

namespace pbserve::server {

using boost::asio::awaitable;

awaitable<bool> write_answer(HttpStream* stream, OpenRequest* open, HttpReply reply,
                             bool keep_alive) {
  reply.headers.emplace_back("X-Request-Id", open->id());
  const bool has_body = open->record.method != "HEAD";
  const auto num_bytes = has_body ? static_cast<int64_t>(reply.body.size()) : 0;
  const bool is_written = co_await stream->write_reply(std::move(reply), keep_alive);
  if (is_written) {
    open->record.bytes_out = num_bytes;
  } else if (open->record.error.empty()) {
    open->fail(absl::CancelledError("the client left"));
  }
  co_return is_written&& keep_alive;
}

awaitable<bool> write_error(HttpStream* stream, OpenRequest* open, absl::Status error,
                            bool keep_alive) {
  open->fail(error);
  co_return co_await write_answer(stream, open, to_http_reply(error), keep_alive);
}

}  // namespace pbserve::server
