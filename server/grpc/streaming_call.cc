#include "server/grpc/streaming_call.h"

namespace pbserve::server {

void StreamingCall::pump() {
  guard([this] { write_next(); });
}

void StreamingCall::OnWriteDone(bool ok) {
  bool is_over = false;
  {
    const std::lock_guard lock(mutex_);
    is_writing_ = false;
    is_over = !ok || is_cancelled_;
    if (is_over && !take_end_locked()) return;
  }
  if (is_over) return end(absl::CancelledError("the client left"));
  pump();
}

void StreamingCall::OnCancel() {
  bool is_ours = false;
  {
    const std::lock_guard lock(mutex_);
    is_cancelled_ = true;
    // Whoever reads, serves or writes ends the call when that is done.
    is_ours = !is_reading_ && !is_serving_ && !is_writing_ && take_end_locked();
  }
  let_go();
  if (is_ours) end(absl::CancelledError("the client left"));
}

}  // namespace pbserve::server
