// ServerConfig: what the outside of the server may take and how long it may take it, and the
// engine's own config beside it. One JSON file (comments allowed), then flags over it by path.
// Unknown keys, wrong types and broken limits refuse to start, naming the key and its range.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "engine/config.h"
#include "kernels/core/status.h"
#include "server/config/api_keys.h"
#include "server/json/body.h"

namespace pbserve::server {

struct HttpOptions {
  int32_t port = 8000;  // 0 = any free one
  int32_t io_threads = 2;
  int32_t max_connections = 4096;
  int64_t max_body_bytes = 64 << 20;
  int64_t max_header_bytes = 64 << 10;
  int32_t idle_timeout_s = 75;    // of a kept-alive connection between requests
  int32_t header_timeout_s = 10;  // of a header, from its first byte; of a TLS handshake
  int32_t body_timeout_s = 120;
  int32_t write_timeout_s = 60;  // without progress, towards a client that does not read
  double sse_keep_alive_s = 15;  // a comment in every silence of this length; 0 = none
  bool strict_params = false;    // refuse fields that are unknown instead of ignoring them
  JsonLimits json;
};

struct GrpcOptions {
  bool enabled = true;
  int32_t port = 50051;  // 0 = any free one
  int32_t max_message_bytes = 256 << 20;
  int32_t max_connections = 4096;
  int32_t max_calls = 4096;
  int32_t receive_timeout_s = 120;  // from a call's start to the end of its message
  int32_t idle_timeout_s = 300;     // of a connection without calls
  bool reflection = true;
};

struct ServerOptions {
  std::string host = "127.0.0.1";
  // TLS on the HTTP and the gRPC port; PEM files. Intermediate certificates stand behind the
  // server's own. With ssl_ca_certs, every client must show a certificate of one of these.
  std::string ssl_certfile;
  std::string ssl_keyfile;
  std::string ssl_ca_certs;
  std::vector<std::string> api_keys;  // see api_keys.h for how they are written
  std::string api_key_file;           // one key a line, besides api_keys
  std::vector<ApiKey> keys;  // filled by load_config() from all sources, the environment too;
                             // empty: open to everybody who can connect
  int64_t max_requests_per_key = 0;       // generating, in flight; 0 = any number
  int64_t max_tokens_per_key = 0;         // of their prompts and longest outputs; 0 = any number
  std::vector<std::string> cors_origins;  // whose pages may read answers; *: all; empty: no CORS
  bool cors_credentials = false;          // those pages may send cookies and certificates
  double drain_delay_s = 0;        // after SIGTERM: not ready, but all requests are taken still
  double shutdown_timeout_s = 30;  // what runs may finish after that. The end comes within
                                   // drain_delay_s + shutdown_timeout_s + 10: last bytes 5, spans
                                   // 2, log 2, KV events 1. Whoever kills the process must wait
                                   // for longer
  double watchdog_s = 120;         // /health fails once the engine stands still for this long while
                                   // it has work; 0 = never
  int32_t admin_port = -1;         // health, readiness and metrics without a key; 0 = any free one,
                                   // -1 = none
  int32_t max_connections_per_address = 1024;  // of one client, on each port; 0 = no bound
  int32_t worker_threads = 2;                  // parsing and tokenising
  int32_t large_worker_threads = 2;            // the same for inputs of 256 KB and more
  int64_t response_buffer_bytes = 1 << 20;     // unread output of one request; beyond: cancelled
  int64_t max_buffered_bytes = 1 << 30;        // all that is held for clients at once: bodies,
                                               // messages, unread responses
  std::string log_level = "info";              // debug | info | warning | error
  std::string log_format = "text";             // text | json: each line an object
  bool log_requests = true;                    // a line for every request
  int64_t max_log_lines_per_s = 1000;          // of those, for callers with a key; as many for
                                               // others, and for what these are refused. What is
                                               // left out is counted
};

struct TracingOptions {
  std::string otlp_endpoint;  // of OTLP over HTTP: http://collector:4318/v1/traces; empty = none;
                              // shown to who asks, so it may hold no password
  std::string service_name = "pbserve";
};

// What happens in the prefix cache, told to routers over ZeroMQ. The names and defaults of vLLM's
// --kv-events-config, but for hwm.
struct KvEventsOptions {
  bool enable_kv_cache_events = false;
  std::string publisher = "zmq";          // zmq | null: nobody
  std::string endpoint = "tcp://*:5557";  // of the PUB socket
  std::string replay_endpoint;            // of the socket that repeats; empty: none
  std::string topic;                      // empty: kv@POD@MODEL, POD being $POD_IP:http.port
                                          // or the host's name
  int32_t buffer_steps = 10000;           // messages kept to be repeated, up to 32 KB each
  int32_t hwm = 10000;                    // messages that wait for one subscriber; then it
                                          // misses some
  int32_t max_queue_size = 100000;        // blocks that wait to be published, 0.6 KB each
};

// Beginnings of prompts that are kept for their senders.
struct ContextOptions {
  int32_t max_contexts = 1000;
  int32_t max_contexts_per_key = 100;  // where there are keys
  int64_t max_bytes = 256 << 20;       // of the tokens and texts of all; about 4.5 a token
  int64_t max_bytes_per_key = 64 << 20;
  int32_t default_ttl_s = 3600;  // from its last part or use on
  int32_t max_ttl_s = 86400;     // that a client may ask for
};

struct ServerConfig {
  ServerOptions server;
  TracingOptions tracing;
  HttpOptions http;
  GrpcOptions grpc;
  KvEventsOptions kv_events;
  ContextOptions contexts;
  engine::EngineConfig engine;
};

// "key.path" and the text of its value, later ones override earlier ones.
struct ConfigOverride {
  std::string path;
  std::string value;
};

// Defaults, then the file (if `file` is not empty), then the overrides. Reads the keys of all
// sources, makes an address of server.host, and checks every limit, the engine's too.
absl::StatusOr<ServerConfig> load_config(const std::string& file,
                                         const std::vector<ConfigOverride>& overrides);

// The same without a look at the network: server.host stays as it is written. For a server that
// listens already, which no name server may hold up.
absl::StatusOr<ServerConfig> read_config(const std::string& file,
                                         const std::vector<ConfigOverride>& overrides);

// Every key with the value in force, nested as in the file; keys of clients are hidden.
Json effective_config(const ServerConfig& config);

}  // namespace pbserve::server
