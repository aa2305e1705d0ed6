#include "server/metrics/server_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <array>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "server/api_error.h"
#include "server/version.h"

namespace pbserve::server {
namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;

// From a probe's answer to a prefill of an hour.
const Histogram::BucketBoundaries kSecondsBuckets{.001, .005, .01, .05, .1,  .5,  1,    5,
                                                  10,   30,   60,  120, 300, 600, 1800, 3600};

constexpr std::array<const char*, 2> kTransports{"http", "grpc"};

// The names of grpc_code's values, as grpc_server_handled_total has them.
constexpr std::array<const char*, 17> kGrpcCodes{
    "OK",       "Canceled",       "Unknown",          "InvalidArgument",   "DeadlineExceeded",
    "NotFound", "AlreadyExists",  "PermissionDenied", "ResourceExhausted", "FailedPrecondition",
    "Aborted",  "OutOfRange",     "Unimplemented",    "Internal",          "Unavailable",
    "DataLoss", "Unauthenticated"};

std::string known_method(absl::string_view method) {
  for (const char* name : {"GET", "HEAD", "POST", "OPTIONS"}) {
    if (method == name) return name;
  }
  return "other";
}

std::string rejection_reason(const absl::Status& status) {
  switch (http_status(status)) {
    case 401:
      return "unauthenticated";
    case 404:
    case 405:
      return "not_found";
    case 408:
      return "timeout";
    case 413:
    case 431:
      return "too_large";
    case 429:
      return "overloaded";
    case 499:
      return "client_left";
    case 503:
      return "unavailable";
    default:
      return status.code() == absl::StatusCode::kInternal ? "internal" : "invalid";
  }
}

}  // namespace

struct ServerMetrics::Impl {
  explicit Impl(const std::string& prefix) : prefix_(prefix) {
    for (size_t i = 0; i < kTransports.size(); ++i) {
      const prometheus::Labels transport{{"transport", kTransports[i]}};
      connections[i] = &connection_family.Add(transport);
      refused_connections[i] = &refused_connection_family.Add(transport);
      wrong_keys[i] = &wrong_key_family.Add(transport);
    }
    const BuildInfo& build = build_info();
    gauge_family("build_info", "Always 1; the labels tell of the program.")
        .Add({{"version", build.version},
              {"commit", build.commit},
              {"date", build.date},
              {"cpu", build.cpu},
              {"gpu", build.gpu}})
        .Set(1);
  }

  std::string ours(const char* name) const { return absl::StrCat(prefix_, ":", name); }
  Family<Counter>& family_as_named(const std::string& name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
  }
  Family<Counter>& counter_family(const char* name, const char* help) {
    return family_as_named(ours(name), help);
  }
  Family<Gauge>& gauge_family(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(ours(name)).Help(help).Register(registry);
  }
  Family<Histogram>& seconds_family(const char* name, const char* help) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
  }

  const std::string prefix_;
  std::mutex render_mutex;  // two scrapes would raise a counter twice
  prometheus::Registry registry;
  Family<Counter>& http_requests =
      family_as_named("http_requests_total", "HTTP answers by class of status: 2xx, 4xx...");
  Family<Histogram>& http_seconds = seconds_family(
      "http_request_duration_seconds", "From a request's head to the end of its answer.");
  Family<Counter>& grpc_handled =
      family_as_named("grpc_server_handled_total", "gRPC calls that have ended, by code.");
  Family<Histogram>& grpc_seconds =
      seconds_family("grpc_server_handling_seconds", "From a gRPC call's start to its end.");
  Family<Counter>& rejected =
      counter_family("requests_rejected_total", "Requests refused before they were queued.");
  Family<Counter>& wrong_key_family =
      counter_family("authentication_failures_total", "Requests without a valid API key.");
  Family<Gauge>& connection_family = gauge_family("connections", "Open connections.");
  Family<Counter>& refused_connection_family =
      counter_family("connections_refused_total", "Connections closed as there was no room.");
  Counter& lines_dropped =
      counter_family("log_lines_dropped_total", "Log lines that nobody read in time.").Add({});
  Counter& spans_exported =
      counter_family("spans_exported_total", "Spans of traces that the collector took.").Add({});
  Counter& spans_dropped =
      counter_family("spans_dropped_total", "Spans that no collector took in time.").Add({});

  std::array<Gauge*, 2> connections{};
  std::array<Counter*, 2> refused_connections{};
  std::array<Counter*, 2> wrong_keys{};
};

ServerMetrics::ServerMetrics(const std::string& prefix) : impl_(std::make_unique<Impl>(prefix)) {}
ServerMetrics::~ServerMetrics() = default;

void ServerMetrics::observe_http(absl::string_view method, absl::string_view handler, int status,
                                 double seconds) {
  const prometheus::Labels route{{"handler", std::string(handler)},
                                 {"method", known_method(method)}};
  prometheus::Labels answer = route;
  answer["status"] = absl::StrCat(status / 100, "xx");
  impl_->http_requests.Add(answer).Increment();
  impl_->http_seconds.Add(route, kSecondsBuckets).Observe(seconds);
}

void ServerMetrics::observe_grpc(absl::string_view path, const absl::Status& status,
                                 double seconds) {
  const size_t slash = std::min(path.find('/'), path.size());
  const bool has_method = slash < path.size();
  const prometheus::Labels method{
      {"grpc_service", std::string(path.substr(0, slash))},
      {"grpc_method", has_method ? std::string(path.substr(slash + 1)) : "none"}};
  const auto code = static_cast<size_t>(grpc_code(status));
  prometheus::Labels end = method;
  end["grpc_code"] = code < kGrpcCodes.size() ? kGrpcCodes[code] : "Unknown";
  impl_->grpc_handled.Add(end).Increment();
  impl_->grpc_seconds.Add(method, kSecondsBuckets).Observe(seconds);
}

void ServerMetrics::count_rejected(const absl::Status& status) {
  impl_->rejected.Add({{"reason", rejection_reason(status)}}).Increment();
}

void ServerMetrics::count_authentication_failure(Transport transport) {
  impl_->wrong_keys[static_cast<size_t>(transport)]->Increment();
}

std::string ServerMetrics::render(const Levels& levels) const {
  const std::lock_guard lock(impl_->render_mutex);
  const auto raise = [](Counter* counter, int64_t to) {
    counter->Increment(std::max(0.0, static_cast<double>(to) - counter->Value()));
  };
  impl_->connections[0]->Set(static_cast<double>(levels.http_connections));
  impl_->connections[1]->Set(static_cast<double>(levels.grpc_connections));
  raise(impl_->refused_connections[0], levels.http_connections_refused);
  raise(impl_->refused_connections[1], levels.grpc_connections_refused);
  raise(&impl_->lines_dropped, levels.log_lines_dropped);
  raise(&impl_->spans_exported, levels.spans_exported);
  raise(&impl_->spans_dropped, levels.spans_dropped);
  return prometheus::TextSerializer().Serialize(impl_->registry.Collect());
}

}  // namespace pbserve::server
