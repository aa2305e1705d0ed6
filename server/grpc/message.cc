#include "server/grpc/message.h"

#include <google/protobuf/stubs/logging.h>
#include <grpcpp/support/proto_buffer_reader.h>
#include <grpcpp/support/slice.h>

#include <cstdlib>
#include <new>
#include <string>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "server/api_error.h"

namespace pbserve::server {
namespace {

// Blocks of the arena are asked for by a plain function, on the thread that parses.
struct Parsing {
  ByteBudget::Lease* lease;
  int64_t held_bytes = 0;
  bool is_over_budget = false;
};
thread_local Parsing* current = nullptr;

void* allocate_block(size_t size) {
  if (current != nullptr) {
    current->held_bytes += static_cast<int64_t>(size);
    current->is_over_budget = !current->lease->grow_to(current->held_bytes);
    if (current->is_over_budget) throw std::bad_alloc();  // the parser knows no other way out
  }
  void* const block = std::malloc(size);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}

google::protobuf::ArenaOptions arena_options() {
  google::protobuf::ArenaOptions options;
  options.max_block_size = 1 << 20;
  options.block_alloc = allocate_block;
  options.block_dealloc = [](void* block, size_t) { std::free(block); };
  return options;
}

}  // namespace

MessageMemory::MessageMemory(ByteBudget* budget)
    : budget_(budget), lease_(budget), arena_(arena_options()) {}

absl::Status MessageMemory::fill(grpc::ByteBuffer* bytes, google::protobuf::Message* message) {
  // It would write a line of its own to standard error for each text that is not UTF-8.
  const google::protobuf::LogSilencer silencer;
  Parsing parsing{.lease = &lease_};
  bool is_parsed = false;
  const absl::Cleanup over = [] { current = nullptr; };  // whatever is thrown
  try {
    current = &parsing;
    grpc::ProtoBufferReader reader(bytes);
    is_parsed = reader.status().ok() && message->ParseFromZeroCopyStream(&reader);
  } catch (const std::bad_alloc&) {
    if (!parsing.is_over_budget) throw;
    const std::string what = absl::StrCat("the parsed message of ", parsing.held_bytes, " bytes");
    return buffers_full(what, budget_->limit_bytes());
  }
  bytes->Clear();
  if (is_parsed) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the message does not parse as ", message->GetTypeName()));
}

grpc::ByteBuffer to_bytes(const google::protobuf::Message& message) {
  const grpc::Slice slice(message.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace pbserve::server
