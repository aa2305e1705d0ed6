// A call that writes message after message to its client, one write at a time, until it ends or the
// client leaves.
#pragma once

#include "server/grpc/call.h"

namespace pbserve::server {

class StreamingCall : public GrpcCall {
 public:
  // Writes the next message if one is there and no write is under way. From any thread.
  void pump();

  void OnWriteDone(bool ok) final;
  void OnCancel() final;

 protected:
  using GrpcCall::GrpcCall;

  // pump()'s. May start a write if none is under way and the call has not ended, and sets
  // is_writing_ first.
  virtual void write_next() = 0;
  // The client has left: lets go of what works for it. Outside the lock.
  virtual void let_go() {}

  // The mutex guards these too.
  bool is_writing_ = false;
  bool is_cancelled_ = false;
};

}  // namespace pbserve::server
