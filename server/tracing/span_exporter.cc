#include "server/tracing/span_exporter.h"

#include <curl/curl.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/round_guard.h"

namespace pbserve::server {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// At the end of the process: the rest of the spans is not worth a longer wait.
constexpr milliseconds kLastTimeout{2000};
// For want of memory: others may give some back.
constexpr milliseconds kPauseAfterFailure{100};
// Failures come in rows; one line a minute tells of them.
constexpr auto kLogInterval = std::chrono::minutes(1);

size_t ignore_body(char*, size_t size, size_t count, void*) { return size * count; }

// libcurl needs this once, before there are threads that use it.
bool init_curl() {
  static const bool is_ready = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
  return is_ready;
}

// Empty where it is not there.
std::string part_of(CURLU* url, CURLUPart part) {
  char* text = nullptr;
  const bool is_there = curl_url_get(url, part, &text, 0) == CURLUE_OK;
  std::string copy = is_there ? text : "";
  curl_free(text);
  return copy;
}

absl::Status check_endpoint(const std::string& endpoint) {
  const std::unique_ptr<CURLU, decltype(&curl_url_cleanup)> url(curl_url(), curl_url_cleanup);
  const bool is_url = curl_url_set(url.get(), CURLUPART_URL, endpoint.c_str(), 0) == CURLUE_OK;
  const bool may_hold_password = is_url ? !part_of(url.get(), CURLUPART_USER).empty() ||
                                              !part_of(url.get(), CURLUPART_PASSWORD).empty()
                                        : absl::StrContains(endpoint, '@');
  if (may_hold_password) {
    return absl::InvalidArgumentError(
        "tracing.otlp_endpoint: must hold no user name and no password: it is shown in the log and "
        "at /config");
  }
  const std::string scheme = part_of(url.get(), CURLUPART_SCHEME);
  if (is_url && (scheme == "http" || scheme == "https")) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("tracing.otlp_endpoint = ", endpoint,
                                                 ": must be a URL such as "
                                                 "http://collector:4318/v1/traces"));
}

}  // namespace

// One connection to the collector, kept alive between batches.
class SpanExporter::Client {
 public:
  Client(const std::string& endpoint, milliseconds timeout)
      : curl_(curl_easy_init(), curl_easy_cleanup) {
    headers_.reset(curl_slist_append(nullptr, "Content-Type: application/json"));
    CURL* const curl = curl_.get();
    curl_easy_setopt(curl, CURLOPT_URL, endpoint.c_str());
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers_.get());
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "pbserve");
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, ignore_body);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);  // there are other threads
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, static_cast<long>(timeout.count()));
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, is_late);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, this);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
  }

  // From here on nothing takes longer than until `time`. From any thread.
  void end_at(Clock::time_point time) { end_ = time; }

  // Empty: the collector has the spans.
  std::string post(const std::string& body) {
    CURL* const curl = curl_.get();
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body.data());
    if (const CURLcode code = curl_easy_perform(curl); code != CURLE_OK) {
      return curl_easy_strerror(code);
    }
    long status = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    return status / 100 == 2 ? "" : absl::StrCat("HTTP status ", status);
  }

 private:
  // libcurl calls this at least once a second during a transfer; not 0 ends it.
  static int is_late(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    return Clock::now() < static_cast<Client*>(self)->end_.load() ? 0 : 1;
  }

  struct FreeList {
    void operator()(curl_slist* list) const { curl_slist_free_all(list); }
  };
  std::atomic<Clock::time_point> end_{Clock::time_point::max()};
  std::unique_ptr<curl_slist, FreeList> headers_;
  std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl_;
};

absl::StatusOr<std::unique_ptr<SpanExporter>> SpanExporter::start(SpanExporterOptions options) {
  if (!init_curl()) return absl::InternalError("libcurl does not start");
  RETURN_IF_ERROR(check_endpoint(options.endpoint));
  auto client = std::make_unique<Client>(options.endpoint, options.export_timeout);
  return std::unique_ptr<SpanExporter>(new SpanExporter(std::move(options), std::move(client)));
}

SpanExporter::SpanExporter(SpanExporterOptions options, std::unique_ptr<Client> client)
    : options_(std::move(options)), client_(std::move(client)), thread_([this] { run(); }) {}

SpanExporter::~SpanExporter() {
  {
    const std::lock_guard lock(mutex_);
    is_over_ = true;
  }
  client_->end_at(Clock::now() + kLastTimeout);
  wake_.notify_one();
  thread_.join();
}

void SpanExporter::add(std::vector<Span> spans) {
  const std::lock_guard lock(mutex_);
  const size_t room = options_.max_queue_size - std::min(options_.max_queue_size, queue_.size());
  const size_t taken = std::min(room, spans.size());
  std::move(spans.begin(), spans.begin() + static_cast<std::ptrdiff_t>(taken),
            std::back_inserter(queue_));
  num_dropped_ += static_cast<int64_t>(spans.size() - taken);
  if (queue_.size() >= options_.max_export_batch_size) wake_.notify_one();
}

std::vector<Span> SpanExporter::take_batch() {
  std::unique_lock lock(mutex_);
  wake_.wait_for(lock, options_.schedule_delay,
                 [this] { return is_over_ || queue_.size() >= options_.max_export_batch_size; });
  const auto count = static_cast<std::ptrdiff_t>(
      is_over_ ? queue_.size() : std::min(queue_.size(), options_.max_export_batch_size));
  std::vector<Span> batch(std::make_move_iterator(queue_.begin()),
                          std::make_move_iterator(queue_.begin() + count));
  queue_.erase(queue_.begin(), queue_.begin() + count);
  return batch;
}

void SpanExporter::run() {
  RoundGuard guard("span exporter");
  bool is_over = false;
  while (!is_over) {
    std::vector<Span> batch;
    const bool is_taken = guard.run([&] { batch = take_batch(); });
    {
      const std::lock_guard lock(mutex_);
      is_over = is_over_ && (queue_.empty() || !is_taken);
    }
    if (!is_taken) std::this_thread::sleep_for(kPauseAfterFailure);
    if (batch.empty() || guard.run([&] { send(batch); })) continue;
    num_dropped_ += static_cast<int64_t>(batch.size());
  }
}

void SpanExporter::send(const std::vector<Span>& batch) {
  const auto count = static_cast<int64_t>(batch.size());
  const std::string error = client_->post(to_otlp_json(batch, options_.resource));
  if (error.empty()) {
    num_exported_ += count;
    return;
  }
  num_dropped_ += count;
  const Clock::time_point time = Clock::now();
  if (time < next_line_) return;
  next_line_ = time + kLogInterval;
  spdlog::warn("{} spans were not taken by {}: {} ({} dropped so far)", count, options_.endpoint,
               error, num_dropped_.load());
}

}  // namespace pbserve::server
