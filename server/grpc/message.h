// Messages of the proto <-> the bytes of a call.
#pragma once

#include <google/protobuf/arena.h>
#include <google/protobuf/message.h>
#include <grpcpp/support/byte_buffer.h>

#include "kernels/core/status.h"
#include "server/byte_budget.h"

namespace pbserve::server {

// Holds a parsed message. Two bytes on the wire can be an object of a hundred, so its objects come
// out of a budget as its bytes did; without one where the bytes have a small bound.
class MessageMemory {
 public:
  explicit MessageMemory(ByteBudget* budget);

  // Frees the bytes. The message lives as long as this.
  template <class Message>
  absl::StatusOr<const Message*> parse(grpc::ByteBuffer* bytes) {
    auto* message = google::protobuf::Arena::CreateMessage<Message>(&arena_);
    RETURN_IF_ERROR(fill(bytes, message));
    return message;
  }

 private:
  absl::Status fill(grpc::ByteBuffer* bytes, google::protobuf::Message* message);

  ByteBudget* const budget_;
  ByteBudget::Lease lease_;  // of the arena, so it goes last
  google::protobuf::Arena arena_;
};

grpc::ByteBuffer to_bytes(const google::protobuf::Message& message);

}  // namespace pbserve::server
