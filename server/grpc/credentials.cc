#include "server/grpc/credentials.h"

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>

#include <mutex>
#include <string>
#include <utility>

namespace pbserve::server {
namespace {

// gRPC asks at every handshake for the certificate; the credentials of its C++ library that can
// change look into files from time to time, whatever state these are in.
class ReloadedCredentials final : public grpc::ServerCredentials {
 public:
  explicit ReloadedCredentials(App* app) : app_(*app) {
    const auto request = app_.tls.load()->client_cas.empty()
                             ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                             : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY;
    core_ = grpc_ssl_server_credentials_create_with_options(
        grpc_ssl_server_credentials_create_options_using_config_fetcher(request, fetch, this));
  }
  ~ReloadedCredentials() override { grpc_server_credentials_release(core_); }

  // Keys are checked when a call's metadata is there.
  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {}

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), core_);
  }

  static grpc_ssl_certificate_config_reload_status fetch(
      void* self, grpc_ssl_server_certificate_config** config) {
    return static_cast<ReloadedCredentials*>(self)->fetch(config);
  }

  grpc_ssl_certificate_config_reload_status fetch(grpc_ssl_server_certificate_config** config) {
    const std::lock_guard lock(mutex_);
    std::shared_ptr<const TlsIdentity> identity = app_.tls.load();
    if (identity == given_) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    // One that gRPC cannot use, though OpenSSL has taken it, is told by a line of its log alone: it
    // keeps the one before and asks again at the next handshake. It is not given it again, as
    // every handshake would add such a line.
    given_ = std::move(identity);
    const grpc_ssl_pem_key_cert_pair pair{given_->private_key.c_str(),
                                          given_->certificate_chain.c_str()};
    // gRPC aborts without CAs, also where no client is asked for a certificate and they count for
    // nothing.
    const std::string& cas =
        given_->client_cas.empty() ? given_->certificate_chain : given_->client_cas;
    *config = grpc_ssl_server_certificate_config_create(cas.c_str(), &pair, 1);
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
  }

  App& app_;
  grpc_server_credentials* core_;
  std::mutex mutex_;
  std::shared_ptr<const TlsIdentity> given_;
};

}  // namespace

std::shared_ptr<grpc::ServerCredentials> make_credentials(App* app) {
  if (!app->tls.load()) return grpc::InsecureServerCredentials();
  return std::make_shared<ReloadedCredentials>(app);
}

}  // namespace pbserve::server
