#include "engine/output_stage.h"

#include <optional>
#include <utility>

#include "engine/stop_matcher.h"
#include "kernels/core/check.h"
#include "models/tokenizer/stream_decoder.h"

namespace pbserve::engine {

namespace {

double seconds_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

}  // namespace

class OutputStage::Stream {
 public:
  Stream(const models::Tokenizer& tokenizer, Metrics& metrics, Start start)
      : metrics_(metrics),
        rules_(std::move(start.rules)),
        sink_(std::move(start.sink)),
        submitted_(start.submitted),
        decoder_(tokenizer, rules_.skip_special_tokens),
        matcher_(rules_.stop_strings) {}

  ResponseSink& sink() { return *sink_; }
  bool is_stopped() const { return !matched_stop_.empty(); }

  void take(const Token& token) {
    if (is_stopped()) return;
    count(token.sampled);
    ids_.push_back(token.id);
    if (token.role == TokenRole::kText || rules_.include_stop_string) {
      print(decoder_.push(token.id));
    }
  }

  void finish(Completion completion) {
    if (!is_stopped()) print(decoder_.finish());
    TextDelta rest{.text = is_stopped() ? "" : matcher_.take_held(), .token_ids = std::move(ids_)};
    if (!rest.text.empty() || !rest.token_ids.empty()) sink_->on_text(std::move(rest));
    if (is_stopped()) {
      completion.status = absl::OkStatus();
      completion.reason = FinishReason::kStop;
      completion.matched_stop = matched_stop_;
    }
    completion.usage.completion_tokens = num_tokens_;
    fill(completion.timings);
    metrics_.observe_finished(completion, seconds_between(submitted_, Clock::now()));
    sink_->on_done(completion);
  }

 private:
  void count(Clock::time_point sampled) {
    if (++num_tokens_ == 1) {
      first_sampled_ = sampled;
      metrics_.observe_first_token(seconds_between(submitted_, sampled));
    } else {
      metrics_.observe_inter_token(seconds_between(last_sampled_, sampled));
    }
    last_sampled_ = sampled;
  }

  // Ids wait for the text they belong to: most deltas are one token, a held back text has several.
  void print(const std::string& text) {
    const bool may_stop = num_tokens_ >= rules_.min_tokens;
    StopMatcher::Match match =
        matcher_.push(text, may_stop ? StopMatcher::Stops::kFind : StopMatcher::Stops::kIgnore);
    matched_stop_ = std::move(match.stop_string);
    if (rules_.include_stop_string) match.text += matched_stop_;
    if (match.text.empty()) return;
    sink_->on_text({.text = std::move(match.text), .token_ids = std::exchange(ids_, {})});
  }

  void fill(Timings& timings) const {
    if (num_tokens_ == 0) return;
    timings.first_token_ms = 1e3 * seconds_between(submitted_, first_sampled_);
    timings.generation_ms = 1e3 * seconds_between(first_sampled_, last_sampled_);
    if (num_tokens_ < 2) return;
    timings.mean_inter_token_ms = timings.generation_ms / static_cast<double>(num_tokens_ - 1);
  }

  Metrics& metrics_;
  OutputRules rules_;
  std::unique_ptr<ResponseSink> sink_;
  Clock::time_point submitted_;
  models::StreamDecoder decoder_;
  StopMatcher matcher_;
  std::string matched_stop_;  // not empty: what follows is dropped
  std::vector<int32_t> ids_;  // tokens whose text has not been released
  int64_t num_tokens_ = 0;
  Clock::time_point first_sampled_;
  Clock::time_point last_sampled_;
};

OutputStage::OutputStage(const models::Tokenizer& tokenizer, Metrics& metrics, OnStop on_stop)
    : tokenizer_(tokenizer),
      metrics_(metrics),
      on_stop_(std::move(on_stop)),
      thread_([this] { run(); }) {}

OutputStage::~OutputStage() {
  events_.close();
  thread_.join();
}

void OutputStage::start(Handle handle, OutputRules rules, std::unique_ptr<ResponseSink> sink,
                        Clock::time_point submitted) {
  send({handle, Start{std::move(rules), std::move(sink), submitted}});
}

void OutputStage::accepted(Handle handle, const Accepted& accepted) { send({handle, accepted}); }

void OutputStage::progress(Handle handle, const PrefillProgress& progress) {
  send({handle, progress});
}

void OutputStage::token(Handle handle, int32_t id, TokenRole role, Clock::time_point sampled) {
  send({handle, Token{id, role, sampled}});
}

void OutputStage::finish(Handle handle, Completion completion) {
  send({handle, std::move(completion)});
}

// Past the queue's limit: the number of events is bounded by the requests in the engine and their
// tokens, and the engine thread must never wait for a slow reader.
void OutputStage::send(Event event) { events_.push(std::move(event)); }

void OutputStage::run() {
  constexpr std::chrono::hours kForever(1);  // only pushes and the close wake this thread
  std::vector<Event> events;
  bool is_open = true;
  while (is_open) {
    is_open = events_.wait_and_take_all(events, kForever);
    for (Event& event : events) deliver(std::move(event));
    events.clear();
  }
  Completion cancelled;
  cancelled.status = absl::CancelledError("the server shut down");
  cancelled.reason = FinishReason::kCancelled;
  for (const auto& [handle, stream] : streams_) stream->finish(cancelled);
  streams_.clear();
}

void OutputStage::deliver(Event event) {
  if (Start* start = std::get_if<Start>(&event.what)) {
    auto stream = std::make_unique<Stream>(tokenizer_, metrics_, std::move(*start));
    check(streams_.emplace(event.handle, std::move(stream)).second, "request started twice");
    return;
  }
  const auto found = streams_.find(event.handle);
  check(found != streams_.end(), "output of a request that has not started or has finished");
  Stream& stream = *found->second;
  if (const auto* accepted = std::get_if<Accepted>(&event.what)) {
    stream.sink().on_accepted(*accepted);
  } else if (const auto* progress = std::get_if<PrefillProgress>(&event.what)) {
    stream.sink().on_progress(*progress);
  } else if (const auto* token = std::get_if<Token>(&event.what)) {
    const bool was_stopped = stream.is_stopped();
    stream.take(*token);
    if (stream.is_stopped() && !was_stopped) on_stop_(event.handle);
  } else {
    stream.finish(std::get<Completion>(std::move(event.what)));
    streams_.erase(found);
  }
}

}  // namespace pbserve::engine
