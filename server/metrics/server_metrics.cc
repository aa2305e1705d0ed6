#include "server/metrics/server_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
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

double seconds_of(const RequestRecord& record) {
  return std::chrono::duration<double>(record.ended - record.arrived).count();
}

}  // namespace

struct ServerMetrics::Impl {
  Impl(const std::string& model_name, const std::string& prefix)
      : prefix_(prefix), labels_{{"model_name", model_name}} {
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

  Family<Counter>& counter_family(const char* name, const char* help) {
    return prometheus::BuildCounter()
        .Name(absl::StrCat(prefix_, ":", name))
        .Help(help)
        .Labels(labels_)
        .Register(registry);
  }
  Family<Gauge>& gauge_family(const char* name, const char* help) {
    return prometheus::BuildGauge()
        .Name(absl::StrCat(prefix_, ":", name))
        .Help(help)
        .Labels(labels_)
        .Register(registry);
  }
  Family<Counter>& common_counter_family(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
  }
  Family<Histogram>& seconds_family(const char* name, const char* help) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
  }

  void observe_http(const RequestRecord& record) {
    const prometheus::Labels route{{"handler", record.handler.empty() ? "none" : record.handler},
                                   {"method", known_method(record)}};
    prometheus::Labels answer = route;
    answer["status"] = absl::StrCat(record.status / 100, "xx");
    http_requests.Add(answer).Increment();
    http_seconds.Add(route, kSecondsBuckets).Observe(seconds_of(record));
  }

  // `handler` is "service/method".
  void observe_grpc(const RequestRecord& record) {
    const std::pair<std::string, std::string> names =
        absl::StrSplit(record.handler.empty() ? "none/none" : record.handler, '/');
    const prometheus::Labels method{{"grpc_service", names.first}, {"grpc_method", names.second}};
    const auto code = static_cast<size_t>(record.code);
    prometheus::Labels end = method;
    end["grpc_code"] = code < kGrpcCodes.size() ? kGrpcCodes[code] : "Unknown";
    grpc_handled.Add(end).Increment();
    grpc_seconds.Add(method, kSecondsBuckets).Observe(seconds_of(record));
  }

  const std::string prefix_;
  const prometheus::Labels labels_;  // of names of our own
  std::mutex render_mutex;           // two scrapes would raise a counter twice
  prometheus::Registry registry;
  Family<Counter>& http_requests =
      common_counter_family("http_requests_total", "HTTP answers by class of status: 2xx, 4xx...");
  Family<Histogram>& http_seconds = seconds_family(
      "http_request_duration_seconds", "From a request's head to the end of its answer.");
  Family<Counter>& grpc_handled =
      common_counter_family("grpc_server_handled_total", "gRPC calls that have ended, by code.");
  Family<Histogram>& grpc_seconds =
      seconds_family("grpc_server_handling_seconds", "From a gRPC call's start to its end.");
  Family<Counter>& rejected = counter_family(
      "requests_rejected_total", "Generating requests refused before they were queued.");
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
  Counter& kv_event_messages =
      counter_family("kv_event_messages_total", "Messages about the prefix cache that were sent.")
          .Add({});
  Counter& kv_event_messages_replayed =
      counter_family("kv_event_messages_replayed_total", "Those that were sent again on request.")
          .Add({});
  Counter& kv_events_dropped =
      counter_family("kv_events_dropped_total",
                     "Stored and removed blocks that no subscriber was told of.")
          .Add({});
  Gauge& contexts = gauge_family("contexts", "Named contexts that are held.").Add({});
  Gauge& context_bytes =
      gauge_family("context_bytes", "Host memory of their tokens and texts.").Add({});

  std::array<Gauge*, 2> connections{};
  std::array<Counter*, 2> refused_connections{};
  std::array<Counter*, 2> wrong_keys{};
};

ServerMetrics::ServerMetrics(const std::string& model_name, const std::string& prefix)
    : impl_(std::make_unique<Impl>(model_name, prefix)) {}
ServerMetrics::~ServerMetrics() = default;

void ServerMetrics::observe(const RequestRecord& record) {
  const bool is_http = record.transport == Transport::kHttp;
  (is_http ? impl_->observe_http(record) : impl_->observe_grpc(record));
  if (record.status == 401) impl_->wrong_keys[is_http ? 0 : 1]->Increment();
  const bool is_rejected = record.generates && record.status >= 400 && !record.completion;
  if (is_rejected) impl_->rejected.Add({{"reason", record.error_reason}}).Increment();
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
  raise(&impl_->kv_event_messages, levels.kv_event_messages);
  raise(&impl_->kv_event_messages_replayed, levels.kv_event_messages_replayed);
  raise(&impl_->kv_events_dropped, levels.kv_events_dropped);
  impl_->contexts.Set(static_cast<double>(levels.contexts));
  impl_->context_bytes.Set(static_cast<double>(levels.context_bytes));
  return prometheus::TextSerializer().Serialize(impl_->registry.Collect());
}

}  // namespace pbserve::server
