// Messages of the proto <-> the bytes of a call.
#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/proto_buffer_reader.h>
#include <grpcpp/support/slice.h>

#include "absl/strings/str_cat.h"
#include "kernels/core/status.h"

namespace pbserve::server {

// Frees the bytes.
inline absl::Status parse_message(grpc::ByteBuffer* bytes, google::protobuf::Message* message) {
  bool is_parsed = false;
  {
    grpc::ProtoBufferReader reader(bytes);
    is_parsed = reader.status().ok() && message->ParseFromZeroCopyStream(&reader);
  }
  bytes->Clear();
  if (is_parsed) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the message does not parse as ", message->GetTypeName()));
}

inline grpc::ByteBuffer to_bytes(const google::protobuf::Message& message) {
  const grpc::Slice slice(message.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace pbserve::server
