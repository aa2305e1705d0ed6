#include "server/command_line.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "server/version.h"

namespace pbserve::server {
namespace {

struct Flag {
  const char* name;
  const char* path;
  const char* help;
};

constexpr Flag kFlags[] = {
    {"--model", "model.path", "Hugging Face folder of the model"},
    {"--served-model-name", "model.served_name", "its name in requests (the folder's name)"},
    {"--max-model-len", "model.max_model_len", "tokens of prompt and output: 32768, 128k, auto"},
    {"--dtype", "model.dtype", "bfloat16 | float32 (CPU only)"},
    {"--load-format", "model.load_format", "auto | dummy (random weights)"},
    {"--hf-overrides", "model.hf_overrides", "JSON merged over the model's config.json"},
    {"--device", "device.kind", "auto | cpu | cuda"},
    {"--kv-cache-memory-bytes", "device.kv_cache_bytes", "memory of the KV cache: 4G, auto"},
    {"--gpu-memory-utilization", "device.gpu_memory_utilization",
     "this server's share of the GPU's memory"},
    {"--max-num-seqs", "scheduler.max_num_seqs", "sequences decoding together"},
    {"--max-num-batched-tokens", "scheduler.max_num_batched_tokens",
     "rows of short prompts prefilled together"},
    {"--max-num-queued-reqs", "scheduler.max_num_queued_reqs", "waiting requests, then 429"},
    {"--max-num-queued-tokens", "scheduler.max_num_queued_tokens", "their tokens, then 429"},
    {"--force-density", "pbs.force_density", "benchmarks: share of blocks drawn in PBS's place"},
    {"--host", "server.host", "address to listen on (127.0.0.1)"},
    {"--port", "http.port", "HTTP port (8000); 0 takes a free one"},
    {"--grpc-port", "grpc.port", "gRPC port (50051); 0 takes a free one"},
    {"--api-key-file", "server.api_key_file", "file with one API key a line"},
    {"--admin-port", "server.admin_port", "port for probes and scrapes, without a key (-1 = none)"},
    {"--drain-delay", "server.drain_delay_s",
     "seconds after SIGTERM that requests are taken still, for balancers to notice"},
    {"--shutdown-timeout", "server.shutdown_timeout_s", "seconds to finish after that"},
    {"--watchdog-s", "server.watchdog_s", "/health fails after so long a standstill; 0 = never"},
    {"--max-body-bytes", "http.max_body_bytes", "largest HTTP body: 64M"},
    {"--sse-keep-alive-interval", "http.sse_keep_alive_s",
     "seconds of silence before a comment; 0 = none"},
    {"--metrics-prefix", "metrics.prefix", "before the colon of metrics (pbserve); vllm for tools"},
    {"--log-level", "server.log_level", "debug | info | warning | error"},
};

void add_value_flags(CLI::App* app, std::vector<ConfigOverride>* overrides) {
  for (const Flag& flag : kFlags) {
    const auto record = [overrides, path = flag.path](const std::string& text) {
      overrides->push_back({path, text});
    };
    // The last one counts: wrappers such as run.sh put their own first.
    app->add_option_function<std::string>(flag.name, record, flag.help)->take_last();
  }
}

void add_switches(CLI::App* app, std::vector<ConfigOverride>* overrides) {
  const auto add = [&](const char* name, const char* path, const char* value, const char* help) {
    app->add_flag_callback(
        name,
        [overrides, path, value] {
          overrides->push_back({path, value});
        },
        help);
  };
  const char* caching = "scheduler.enable_prefix_caching";
  add("--enable-prefix-caching", caching, "true", "reuse the cache of equal prefixes (on)");
  add("--no-enable-prefix-caching", caching, "false", "do not");
  add("--enforce-eager", "device.enforce_eager", "true", "no CUDA graphs for decode steps");
  add("--strict-params", "http.strict_params", "true", "refuse unknown request fields");
  add("--no-grpc", "grpc.enabled", "false", "do not serve gRPC");
}

}  // namespace

CommandLineResult parse_command_line(int argc, const char* const* argv) {
  CommandLine line;
  CLI::App app("pbserve: a long-context LLM inference server", "pbserve");
  app.set_version_flag("--version", std::string(kVersion));
  app.add_option("--config", line.config_file, "JSON file; every key stands in /config");
  add_value_flags(&app, &line.overrides);
  add_switches(&app, &line.overrides);
  std::vector<std::string> api_keys;
  app.add_option("--api-key", api_keys, "key that clients must send; may be given several times")
      ->allow_extra_args(false);
  std::vector<std::string> settings;
  app.add_option("--set", settings, "key.path=value of the config, such as pbs.threshold=0.8")
      ->allow_extra_args(false);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return {.command_line = std::nullopt, .exit_code = app.exit(error)};
  }
  if (!api_keys.empty()) {
    line.overrides.push_back({"server.api_keys", Json(api_keys).dump()});
  }
  for (const std::string& setting : settings) {
    const size_t equals = setting.find('=');
    if (equals == std::string::npos) {
      std::cerr << "--set " << setting << ": write key.path=value\n";
      return {.command_line = std::nullopt, .exit_code = 1};
    }
    line.overrides.push_back({setting.substr(0, equals), setting.substr(equals + 1)});
  }
  return {.command_line = std::move(line), .exit_code = 0};
}

}  // namespace pbserve::server
