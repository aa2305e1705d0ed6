// Any bytes as a message of the gRPC service, up to the request that the engine would get: an error
// whose details serialise, or a request. The first byte chooses the message.
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <cstdint>

#include "kernels/core/check.h"
#include "proto/error_details.pb.h"
#include "proto/inference.pb.h"
#include "server/api_error.h"
#include "server/grpc/convert.h"
#include "server/grpc/message.h"

namespace {

namespace server = pbserve::server;
namespace v1 = pbserve::v1;

constexpr int64_t kBudgetBytes = 1 << 20;
constexpr server::JsonLimits kLimits{
    .max_depth = 16, .max_values = 10000, .max_object_members = 64};

// What the client is told must be the client's error, in details that it can read.
void check_error(const absl::Status& status) {
  if (status.ok()) return;
  const int http = server::http_status(status);
  pbserve::check(http >= 400 && http < 500, "bad input is not the client's error");
  v1::ErrorStatus details;
  pbserve::check(details.ParseFromString(server::error_details(status)), "details do not parse");
  pbserve::check(details.code() == server::grpc_code(status), "details have another code");
}

template <class Message, class Convert>
void run(const uint8_t* data, size_t size, Convert convert) {
  server::ByteBudget budget(kBudgetBytes);
  {
    const grpc::Slice slice(data, size);
    grpc::ByteBuffer bytes(&slice, 1);
    server::MessageMemory memory(&budget);
    const absl::StatusOr<const Message*> message = memory.parse<Message>(&bytes);
    check_error(message.ok() ? convert(**message) : message.status());
  }
  pbserve::check(budget.held_bytes() == 0, "the budget is not given back");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const bool is_generate = data[0] % 2 == 0;
  if (is_generate) {
    run<v1::GenerateRequest>(data + 1, size - 1, [](const v1::GenerateRequest& message) {
      return server::from_proto(message, kLimits, "made").status();
    });
  } else {
    run<v1::TokenizeRequest>(data + 1, size - 1, [](const v1::TokenizeRequest& message) {
      return server::prompt_from_proto(message, kLimits).status();
    });
  }
  return 0;
}
