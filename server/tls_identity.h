// What the server proves itself with, and whose clients it takes: PEM files that have been read and
// checked together.
#pragma once

#include <memory>
#include <string>

#include "kernels/core/status.h"
#include "server/config/config.h"

namespace boost::asio::ssl {
class context;
}

namespace pbserve::server {

struct TlsIdentity {
  std::string certificate_chain;
  std::string private_key;
  std::string client_cas;                              // empty: clients show no certificate
  std::shared_ptr<boost::asio::ssl::context> context;  // OpenSSL's, of all three, for HTTP/1.1
};

// Reads the files of server.ssl_*; null where none is given. Errors name the key, the file and the
// reason, and hold nothing of what is in the file.
absl::StatusOr<std::shared_ptr<const TlsIdentity>> load_tls_identity(const ServerOptions& options);

}  // namespace pbserve::server
