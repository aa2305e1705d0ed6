// absl::Status -> grpc::Status; the codes are api_error's.
#pragma once

#include <grpcpp/support/status.h>

#include "kernels/core/status.h"
#include "server/api_error.h"
#include "server/grpc/convert.h"

namespace pbserve::server {

inline grpc::Status to_grpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(grpc_code(status)),
                      std::string(status.message()), error_details(status));
}

}  // namespace pbserve::server
