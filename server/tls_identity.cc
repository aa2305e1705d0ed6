#include "server/tls_identity.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/ssl/context.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/config/text_file.h"

namespace pbserve::server {
namespace {

namespace asio = boost::asio;
namespace ssl = asio::ssl;
using boost::system::error_code;

// The protocol's name after its length, as ALPN writes a list.
constexpr unsigned char kAlpn[] = "\x08http/1.1";

// One of the three keys, for errors.
struct Source {
  const char* key;
  const std::string& file;
};

absl::Status refuse(const Source& source, absl::string_view reason) {
  return absl::InvalidArgumentError(absl::StrCat(source.key, " = ", source.file, ": ", reason));
}

absl::StatusOr<std::string> read_pem(const Source& source) {
  absl::StatusOr<std::string> text = read_text_file(source.file);
  if (text.ok()) return text;
  return absl::InvalidArgumentError(absl::StrCat(source.key, " = ", text.status().message()));
}

// HTTP/1.1 for a client that asks; one that knows other protocols only is refused (RFC 7301,
// section 3.2).
int select_protocol(SSL*, const unsigned char** out, unsigned char* out_length,
                    const unsigned char* offered, unsigned int offered_length, void*) {
  unsigned char* chosen = nullptr;
  const int result =
      SSL_select_next_proto(&chosen, out_length, kAlpn, sizeof(kAlpn) - 1, offered, offered_length);
  *out = chosen;
  return result == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

std::shared_ptr<ssl::context> make_context() {
  auto context = std::make_shared<ssl::context>(ssl::context::tls_server);
  SSL_CTX* const native = context->native_handle();
  SSL_CTX_set_min_proto_version(native, TLS1_2_VERSION);
  SSL_CTX_set_options(native, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  // Clients resume with tickets, which the server does not hold. The name is of no meaning, but
  // without one OpenSSL resumes no session of a client with a certificate.
  SSL_CTX_set_session_cache_mode(native, SSL_SESS_CACHE_OFF);
  static constexpr unsigned char kSessions[] = "pbserve";
  SSL_CTX_set_session_id_context(native, kSessions, sizeof(kSessions) - 1);
  SSL_CTX_set_alpn_select_cb(native, select_protocol, nullptr);
  return context;
}

absl::Status use_certificate(const Source& source, TlsIdentity* identity) {
  ASSIGN_OR_RETURN(identity->certificate_chain, read_pem(source));
  error_code error;
  identity->context->use_certificate_chain(asio::buffer(identity->certificate_chain), error);
  return error ? refuse(source, absl::StrCat("is not a certificate in PEM: ", error.message()))
               : absl::OkStatus();
}

absl::Status use_key(const Source& source, const Source& certificate, TlsIdentity* identity) {
  ASSIGN_OR_RETURN(identity->private_key, read_pem(source));
  ssl::context& context = *identity->context;
  bool is_encrypted = false;  // OpenSSL would ask for a password at the terminal
  context.set_password_callback([&](size_t, ssl::context::password_purpose) {
    is_encrypted = true;
    return std::string();
  });
  error_code error;
  context.use_private_key(asio::buffer(identity->private_key), ssl::context::pem, error);
  context.set_password_callback(
      [](size_t, ssl::context::password_purpose) { return std::string(); });
  if (is_encrypted) return refuse(source, "is encrypted: only a key without a password is taken");
  const bool is_of_another =
      error ? ERR_GET_LIB(error.value()) == ERR_LIB_X509
            : SSL_CTX_check_private_key(context.native_handle()) != 1;  // of another kind
  ERR_clear_error();
  if (is_of_another) {
    return refuse(source,
                  absl::StrCat("does not belong to ", certificate.key, " = ", certificate.file));
  }
  return error ? refuse(source, absl::StrCat("is not a private key in PEM: ", error.message()))
               : absl::OkStatus();
}

absl::Status use_client_cas(const Source& source, TlsIdentity* identity) {
  ASSIGN_OR_RETURN(identity->client_cas, read_pem(source));
  SSL_CTX* const native = identity->context->native_handle();
  const std::unique_ptr<BIO, int (*)(BIO*)> text(
      BIO_new_mem_buf(identity->client_cas.data(), static_cast<int>(identity->client_cas.size())),
      BIO_free);
  int num_certificates = 0;
  while (true) {
    const std::unique_ptr<X509, void (*)(X509*)> certificate(
        PEM_read_bio_X509(text.get(), nullptr, nullptr, nullptr), X509_free);
    if (!certificate) break;
    ++num_certificates;
    X509_STORE_add_cert(SSL_CTX_get_cert_store(native), certificate.get());
    SSL_CTX_add_client_CA(native, certificate.get());  // told to clients, which may choose by it
  }
  const unsigned long error = ERR_peek_last_error();
  ERR_clear_error();
  const bool is_end =
      ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
  if (!is_end || num_certificates == 0) {
    return refuse(source, absl::StrCat("is not a list of certificates in PEM: number ",
                                       num_certificates + 1, ": ", ERR_reason_error_string(error)));
  }
  SSL_CTX_set_verify(native, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  return absl::OkStatus();
}

absl::Status missing(const Source& given, const char* key) {
  return refuse(given, absl::StrCat("needs ", key, " too"));
}

}  // namespace

absl::StatusOr<std::shared_ptr<const TlsIdentity>> load_tls_identity(const ServerOptions& options) {
  const Source certificate{"server.ssl_certfile", options.ssl_certfile};
  const Source key{"server.ssl_keyfile", options.ssl_keyfile};
  const Source cas{"server.ssl_ca_certs", options.ssl_ca_certs};
  if (certificate.file.empty()) {
    if (!key.file.empty()) return missing(key, certificate.key);
    if (!cas.file.empty()) return missing(cas, certificate.key);
    return nullptr;
  }
  if (key.file.empty()) return missing(certificate, key.key);
  auto identity = std::make_shared<TlsIdentity>();
  identity->context = make_context();
  RETURN_IF_ERROR(use_certificate(certificate, identity.get()));
  RETURN_IF_ERROR(use_key(key, certificate, identity.get()));
  if (!cas.file.empty()) RETURN_IF_ERROR(use_client_cas(cas, identity.get()));
  return std::shared_ptr<const TlsIdentity>(std::move(identity));
}

}  // namespace pbserve::server
