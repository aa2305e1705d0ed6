#include "server/config/command_line.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "server/config/manual.h"
#include "server/version.h"

namespace pbserve::server {
namespace {

constexpr char kModel[] = "Model";
constexpr char kDevice[] = "Device";
constexpr char kScheduler[] = "Scheduler";
constexpr char kSparse[] = "Sparse attention";
constexpr char kNetwork[] = "Network";
constexpr char kLogging[] = "Logging";

struct Flag {
  const char* group;
  const char* name;
  const char* path;   // of the config, whose default is the flag's
  const char* value;  // what stands behind the flag in --help
  const char* help;
};

constexpr Flag kFlags[] = {
    {kModel, "--model", "model.path", "FOLDER", "Hugging Face folder of the model"},
    {kModel, "--served-model-name", "model.served_name", "NAME",
     "its name in requests [the folder's name]"},
    {kModel, "--max-model-len", "model.max_model_len", "N",
     "tokens of prompt and output: 32768, 128k, auto"},
    {kModel, "--dtype", "model.dtype", "TYPE", "bfloat16 | float32 (CPU only)"},
    {kModel, "--load-format", "model.load_format", "FORMAT", "auto | dummy (random weights)"},
    {kModel, "--hf-overrides", "model.hf_overrides", "JSON", "merged over the model's config.json"},
    {kDevice, "--device", "device.kind", "KIND", "auto | cpu | cuda"},
    {kDevice, "--gpu-memory-utilization", "device.gpu_memory_utilization", "SHARE",
     "this server's share of the GPU's memory"},
    {kDevice, "--kv-cache-memory-bytes", "device.kv_cache_bytes", "SIZE",
     "memory of the KV cache: 4G, auto"},
    {kDevice, "--kv-offload-bytes", "device.kv_offload_bytes", "SIZE",
     "host memory for cached prefixes that the KV cache evicts: 64G; 0 = none"},
    {kScheduler, "--max-num-seqs", "scheduler.max_num_seqs", "N", "sequences decoding together"},
    {kScheduler, "--max-num-batched-tokens", "scheduler.max_num_batched_tokens", "N",
     "rows of short prompts prefilled together"},
    {kScheduler, "--max-num-queued-reqs", "scheduler.max_num_queued_reqs", "N",
     "waiting requests, then 429"},
    {kScheduler, "--max-num-queued-tokens", "scheduler.max_num_queued_tokens", "N",
     "their tokens, then 429"},
    {kScheduler, "--max-queue-time", "scheduler.max_queued_s", "S",
     "estimated wait of a new request, then 429; 0 = no limit"},
    {kSparse, "--sparse-attention", "pbs.mode", "MODE",
     "auto (prompts long enough to gain) | dense | pbs"},
    {kSparse, "--sparse-threshold", "pbs.threshold", "T",
     "attention to keep: more is slower and closer to dense"},
    {kSparse, "--force-density", "pbs.force_density", "SHARE",
     "benchmarks: share of blocks drawn in PBS's place; 0 = off"},
    {kNetwork, "--host", "server.host", "ADDRESS", "where to listen: address or name"},
    {kNetwork, "--port", "http.port", "N", "HTTP port; 0 takes a free one"},
    {kNetwork, "--grpc-port", "grpc.port", "N", "gRPC port; 0 takes a free one"},
    {kNetwork, "--api-key-file", "server.api_key_file", "FILE",
     "API keys, each a line, KEY or KEY name=NAME, # for comments [none: open to all]"},
    {kNetwork, "--max-requests-per-key", "server.max_requests_per_key", "N",
     "generating requests of one API key in flight, then 429; 0 = any number"},
    {kNetwork, "--max-tokens-per-key", "server.max_tokens_per_key", "N",
     "tokens of their prompts and longest outputs, then 429; 0 = any number"},
    {kNetwork, "--allowed-origins", "server.cors_origins", "JSON",
     "origins whose pages may read answers: [\"https://a.example\"], [\"*\"] [none]"},
    {kNetwork, "--ssl-certfile", "server.ssl_certfile", "FILE",
     "certificate chain, PEM, for TLS on the HTTP and the gRPC port [none: no TLS]"},
    {kNetwork, "--ssl-keyfile", "server.ssl_keyfile", "FILE",
     "its private key, PEM, without a password [none]"},
    {kNetwork, "--ssl-ca-certs", "server.ssl_ca_certs", "FILE",
     "CAs, PEM, of which every client must show a certificate [none: clients need none]"},
    {kNetwork, "--max-body-bytes", "http.max_body_bytes", "SIZE", "largest HTTP body"},
    {kNetwork, "--sse-keep-alive-interval", "http.sse_keep_alive_s", "S",
     "seconds of silence before a comment; 0 = none"},
    {kNetwork, "--admin-port", "server.admin_port", "N",
     "port for probes and scrapes, without a key; 0 takes a free one, -1 = none"},
    {kNetwork, "--drain-delay", "server.drain_delay_s", "S",
     "seconds after SIGTERM that requests are taken still, for balancers to notice"},
    {kNetwork, "--shutdown-timeout", "server.shutdown_timeout_s", "S",
     "seconds to finish after that"},
    {kNetwork, "--watchdog-s", "server.watchdog_s", "S",
     "/health fails once the engine stands still for so long; 0 = never"},
    {kLogging, "--metrics-prefix", "metrics.prefix", "NAME",
     "before the colon of metrics: vllm for tools that know its names"},
    {kLogging, "--otlp-traces-endpoint", "tracing.otlp_endpoint", "URL",
     "collector of spans: http://collector:4318/v1/traces [none]"},
    {kLogging, "--kv-events-config", "kv_events", "JSON",
     "blocks of the prefix cache, to routers over ZeroMQ: "
     "{\"enable_kv_cache_events\": true, \"topic\": \"kv@POD@NAME\"} [none]"},
    {kLogging, "--log-level", "server.log_level", "LEVEL", "debug | info | warning | error"},
    {kLogging, "--log-format", "server.log_format", "FORMAT", "text | json, an object a line"},
};

struct Switch {
  const char* group;
  const char* name;
  const char* path;
  const char* value;  // what the flag sets; the default is the other one
  const char* help;
};

constexpr char kCaching[] = "scheduler.enable_prefix_caching";
constexpr Switch kSwitches[] = {
    {kScheduler, "--enable-prefix-caching", kCaching, "true", "reuse the cache of equal prefixes"},
    {kScheduler, "--no-enable-prefix-caching", kCaching, "false", "compute them again"},
    {kDevice, "--enforce-eager", "device.enforce_eager", "true", "no CUDA graphs for decode steps"},
    {kNetwork, "--strict-params", "http.strict_params", "true", "refuse unknown request fields"},
    {kNetwork, "--allow-credentials", "server.cors_credentials", "true",
     "of those origins: cookies and certificates of the browser"},
    {kNetwork, "--no-grpc", "grpc.enabled", "false", "do not serve gRPC"},
    {kLogging, "--disable-log-requests", "server.log_requests", "false",
     "no line for each request"},
};

constexpr char kFooter[] = R"(Examples:
  pbserve --model models/demo
  pbserve --model /models/Qwen3-8B --max-model-len 32k --device cuda --host 0.0.0.0 \
          --api-key-file keys.txt
  pbserve --config configs/qwen3-8b.json --set pbs.threshold=0.95

API keys are also read from the environment: PBSERVE_API_KEYS, separated by commas or newlines.
"KEY name=NAME" gives a key the name that logs and limits use; without it it is key1, key2, ...
A running server shows every key of the config, with its value, at /config.)";

// 67108864 as 64M.
std::string size_text(int64_t value) {
  for (const auto& [unit, suffix] : {std::pair(int64_t{1} << 30, "G"), {int64_t{1} << 20, "M"}}) {
    if (value > 0 && value % unit == 0) return absl::StrCat(value / unit, suffix);
  }
  return absl::StrCat(value);
}

// The default of a key of the config, as a flag would be given it; empty if it is an empty string
// or list, or a section.
std::string default_text(const Json& defaults, const char* path) {
  const auto pointer = absl::StrCat("/", absl::StrReplaceAll(path, {{".", "/"}}));
  const Json& value = defaults.at(Json::json_pointer(pointer));
  if (value.is_string()) return value.get<std::string>();
  if (value.is_object() || (value.is_array() && value.empty())) return "";
  if (value.is_number_integer()) return size_text(value.get<int64_t>());
  if (value.is_number()) return absl::StrCat(value.get<double>());
  return dump_json(value);
}

std::string help_text(const char* help, const std::string& value) {
  return value.empty() ? help : absl::StrCat(help, " [", value, "]");
}

void add_value_flags(const Json& defaults, CLI::App* app, std::vector<ConfigOverride>* overrides) {
  for (const Flag& flag : kFlags) {
    const auto record = [overrides, path = flag.path](const std::string& text) {
      overrides->push_back({path, text});
    };
    const std::string help = help_text(flag.help, default_text(defaults, flag.path));
    // The last one counts: wrappers such as run.sh put their own first.
    app->add_option_function<std::string>(flag.name, record, help)
        ->take_last()
        ->option_text(flag.value)
        ->group(flag.group);
  }
}

void add_switches(const Json& defaults, CLI::App* app, std::vector<ConfigOverride>* overrides) {
  for (const Switch& flag : kSwitches) {
    const bool is_on = default_text(defaults, flag.path) == flag.value;
    const auto record = [overrides, flag] { overrides->push_back({flag.path, flag.value}); };
    app->add_flag_callback(flag.name, record, help_text(flag.help, is_on ? "on" : "off"))
        ->group(flag.group);
  }
}

// For those who package the program; not in --help.
void add_hidden_prints(CLI::App* app, std::string* printed) {
  const auto add = [app, printed](const char* name, std::string (*text)(const CLI::App&)) {
    app->add_flag_callback(name, [app, printed, text] { *printed = text(*app); })->group("");
  };
  add("--print-man-page", man_page);
  add("--print-bash-completion", bash_completion);
}

}  // namespace

CommandLineResult parse_command_line(int argc, const char* const* argv) {
  CommandLine line;
  const Json defaults = effective_config({});
  CLI::App app("pbserve: a long-context LLM inference server\nDefaults stand in [].", "pbserve");
  app.get_formatter()->column_width(36);
  app.footer(kFooter);
  app.get_help_ptr()->group("General");
  app.set_version_flag("--version", version_text(), "version, commit, date and backends")
      ->group("General");
  app.add_option("--config", line.config_file, "JSON file, // comments allowed; flags beat it")
      ->option_text("FILE")
      ->group("General");
  std::vector<std::string> settings;
  app.add_option("--set", settings, "any key of the config, such as pbs.threshold=0.8")
      ->allow_extra_args(false)
      ->option_text("KEY=VALUE")
      ->group("General");
  add_value_flags(defaults, &app, &line.overrides);
  add_switches(defaults, &app, &line.overrides);
  std::vector<std::string> api_keys;
  app.add_option("--api-key", api_keys,
                 "a key that clients must send; repeatable, but visible in ps")
      ->allow_extra_args(false)
      ->option_text("KEY")
      ->group(kNetwork);
  std::string printed;
  add_hidden_prints(&app, &printed);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return {.command_line = std::nullopt, .exit_code = app.exit(error)};
  }
  if (!printed.empty()) {
    std::cout << printed;
    return {.command_line = std::nullopt, .exit_code = 0};
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
