// What gRPC's connections begin with: TLS with the identity in force, or nothing.
#pragma once

#include <grpcpp/security/server_credentials.h>

#include <memory>

#include "server/app.h"

namespace pbserve::server {

// `app` outlives the server that uses them. A new app->tls counts from the next connection on.
std::shared_ptr<grpc::ServerCredentials> make_credentials(App* app);

}  // namespace pbserve::server
