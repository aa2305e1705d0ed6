// OutputStage with a tokenizer whose ids are bytes: what the sinks see, in which order.
#include "engine/output_stage.h"

#include <gtest/gtest.h>

#include <future>
#include <map>
#include <mutex>

namespace pbserve::engine {
namespace {

using std::chrono::milliseconds;

constexpr int32_t kEndId = 256;  // special, "<end>"

class ByteTokenizer : public models::Tokenizer {
 public:
  absl::StatusOr<std::vector<int32_t>> encode(std::string_view text,
                                              models::EncodeOptions) const override {
    std::vector<int32_t> ids;
    for (const char byte : text) ids.push_back(static_cast<uint8_t>(byte));
    return ids;
  }
  std::string token_bytes(int32_t id) const override {
    return id == kEndId ? "<end>" : std::string(1, static_cast<char>(id));
  }
  bool is_special(int32_t id) const override { return id == kEndId; }
  std::optional<int32_t> token_id(std::string_view) const override { return std::nullopt; }
  int32_t vocab_size() const override { return kEndId + 1; }
};

// Everything one sink was told.
struct Record {
  std::string calls;  // one letter each: accepted, progress, text, done, ~ destroyed
  std::string text;
  std::vector<std::string> deltas;
  std::vector<int32_t> ids;
  Completion completion;
};

class RecordingSink : public ResponseSink {
 public:
  explicit RecordingSink(std::promise<Record> promise) : promise_(std::move(promise)) {}
  ~RecordingSink() override {
    record_.calls += '~';
    promise_.set_value(std::move(record_));
  }
  void on_accepted(const Accepted&) override { record_.calls += 'a'; }
  void on_progress(const PrefillProgress&) override { record_.calls += 'p'; }
  void on_text(TextDelta delta) override {
    record_.calls += 't';
    record_.text += delta.text;
    record_.deltas.push_back(delta.text);
    record_.ids.insert(record_.ids.end(), delta.token_ids.begin(), delta.token_ids.end());
  }
  void on_done(const Completion& completion) override {
    record_.calls += 'd';
    record_.completion = completion;
  }

 private:
  std::promise<Record> promise_;
  Record record_;
};

class OutputStageTest : public ::testing::Test {
 protected:
  using Handle = OutputStage::Handle;

  void start(Handle handle, OutputRules rules = {}) {
    std::promise<Record> promise;
    results_[handle] = promise.get_future();
    stage_->start(handle, std::move(rules), std::make_unique<RecordingSink>(std::move(promise)),
                  submitted_);
  }

  // Token i of a request is sampled 100 + 10 i ms after it was submitted.
  void type(Handle handle, const std::string& text) {
    for (const char byte : text) token(handle, static_cast<uint8_t>(byte), TokenRole::kText);
  }

  void token(Handle handle, int32_t id, TokenRole role) {
    const auto sampled = submitted_ + milliseconds(100 + 10 * num_tokens_[handle]++);
    stage_->token(handle, id, role, sampled);
  }

  Record finish(Handle handle, FinishReason reason = FinishReason::kLength) {
    Completion completion;
    completion.reason = reason;
    completion.usage = {.prompt_tokens = 5, .cached_tokens = 0, .completion_tokens = 0};
    stage_->finish(handle, std::move(completion));
    return result(handle);
  }

  Record result(Handle handle) { return results_.at(handle).get(); }

  ByteTokenizer tokenizer_;
  Metrics metrics_{"test-model"};
  std::mutex mutex_;
  std::vector<Handle> stopped_;  // guarded by mutex_
  Clock::time_point submitted_ = Clock::now() - std::chrono::seconds(10);
  std::map<Handle, int> num_tokens_;
  std::map<Handle, std::future<Record>> results_;
  std::unique_ptr<OutputStage> stage_ =
      std::make_unique<OutputStage>(tokenizer_, metrics_, [this](Handle handle) {
        std::lock_guard lock(mutex_);
        stopped_.push_back(handle);
      });
};

TEST_F(OutputStageTest, DeliversEachTokenInOrder) {
  start(1);
  stage_->accepted(1, {});
  stage_->progress(1, {});
  type(1, "abc");
  const Record record = finish(1);
  EXPECT_EQ(record.calls, "aptttd~");
  EXPECT_EQ(record.deltas, (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(record.ids, (std::vector<int32_t>{'a', 'b', 'c'}));
  EXPECT_EQ(record.completion.reason, FinishReason::kLength);
  EXPECT_EQ(record.completion.usage.prompt_tokens, 5);
  EXPECT_EQ(record.completion.usage.completion_tokens, 3);
}

TEST_F(OutputStageTest, MeasuresTheTimesOfTokens) {
  start(1);
  type(1, "abc");
  const Timings timings = finish(1).completion.timings;
  EXPECT_NEAR(timings.first_token_ms, 100, 1e-6);
  EXPECT_NEAR(timings.generation_ms, 20, 1e-6);
  EXPECT_NEAR(timings.mean_inter_token_ms, 10, 1e-6);

  start(2);
  type(2, "a");
  EXPECT_EQ(finish(2).completion.timings.mean_inter_token_ms, -1);
  start(3);
  EXPECT_EQ(finish(3).completion.timings.first_token_ms, -1);
}

TEST_F(OutputStageTest, RequestsDoNotMix) {
  start(1);
  start(2, {.stop_strings = {"b"}});
  type(1, "a");
  type(2, "x");
  type(1, "b");
  EXPECT_EQ(finish(2).text, "x");
  EXPECT_EQ(finish(1).text, "ab");
}

TEST_F(OutputStageTest, NeverSplitsACharacter) {
  start(1);
  type(1, "\xe2\x82\xac\xc3");  // a euro sign and half of another character
  const Record record = finish(1);
  EXPECT_EQ(record.deltas, (std::vector<std::string>{"\xe2\x82\xac", "\xef\xbf\xbd"}));
  EXPECT_EQ(record.ids.size(), 4u);
}

TEST_F(OutputStageTest, AStopStringEndsTheRequest) {
  start(1, {.stop_strings = {"STOP", "never"}});
  type(1, "go ST");
  type(1, "OP more");
  const Record record = finish(1, FinishReason::kCancelled);
  EXPECT_EQ(record.text, "go ");
  EXPECT_EQ(record.ids.size(), 7u) << "the tokens up to the one that completed the stop string";
  EXPECT_EQ(record.completion.reason, FinishReason::kStop);
  EXPECT_EQ(record.completion.matched_stop, "STOP");
  EXPECT_EQ(record.completion.usage.completion_tokens, 7);
  EXPECT_NEAR(record.completion.timings.generation_ms, 60, 1e-6);
  EXPECT_EQ(stopped_, std::vector<Handle>{1}) << "told once";
}

TEST_F(OutputStageTest, AStopStringCountsAsSuccessWhateverFollows) {
  start(1, {.stop_strings = {"."}});
  type(1, "a.");
  Completion late;
  late.status = absl::DeadlineExceededError("too late");
  late.reason = FinishReason::kError;
  stage_->finish(1, late);
  const Record record = result(1);
  EXPECT_TRUE(record.completion.status.ok());
  EXPECT_EQ(record.completion.reason, FinishReason::kStop);
}

TEST_F(OutputStageTest, HeldBackTextComesWhenNoStopStringDid) {
  start(1, {.stop_strings = {"STOP"}});
  type(1, "a STO");
  const Record record = finish(1);
  EXPECT_EQ(record.deltas, (std::vector<std::string>{"a", " ", "STO"}));
  EXPECT_EQ(record.ids.size(), 5u);
  EXPECT_EQ(record.completion.reason, FinishReason::kLength);
  EXPECT_EQ(record.completion.matched_stop, "");
  EXPECT_TRUE(stopped_.empty());
}

TEST_F(OutputStageTest, MayKeepTheStopString) {
  start(1, {.stop_strings = {"OP"}, .include_stop_string = true});
  type(1, "a OP b");
  EXPECT_EQ(finish(1).text, "a OP");
}

TEST_F(OutputStageTest, StopStringsWaitForTheMinimum) {
  start(1, {.stop_strings = {"."}, .min_tokens = 3});
  type(1, "a.b.c");
  const Record record = finish(1);
  EXPECT_EQ(record.text, "a.b");
  EXPECT_EQ(record.completion.usage.completion_tokens, 4);

  start(2, {.stop_strings = {"."}, .min_tokens = 4});
  type(2, "a.b.c");
  EXPECT_EQ(finish(2).completion.usage.completion_tokens, 4);
}

TEST_F(OutputStageTest, TheEndTokenIsCountedNotPrinted) {
  start(1, {.stop_strings = {}, .skip_special_tokens = false});
  type(1, "a");
  token(1, kEndId, TokenRole::kEnd);
  const Record record = finish(1, FinishReason::kStop);
  EXPECT_EQ(record.text, "a");
  EXPECT_EQ(record.ids, (std::vector<int32_t>{'a', kEndId}));
  EXPECT_EQ(record.completion.usage.completion_tokens, 2);

  start(2, {.stop_strings = {}, .include_stop_string = true, .skip_special_tokens = false});
  token(2, kEndId, TokenRole::kEnd);
  EXPECT_EQ(finish(2).text, "<end>");
}

TEST_F(OutputStageTest, SpecialTokensArePrintedOnlyOnWish) {
  start(1);
  token(1, kEndId, TokenRole::kText);
  EXPECT_EQ(finish(1).text, "");
  start(2, {.stop_strings = {}, .skip_special_tokens = false});
  token(2, kEndId, TokenRole::kText);
  EXPECT_EQ(finish(2).text, "<end>");
}

TEST_F(OutputStageTest, ShutdownFinishesWhatIsLeft) {
  start(1);
  type(1, "ab");
  start(2, {.stop_strings = {"."}});
  type(2, "x.");
  start(3);
  stage_->finish(3, {});
  stage_.reset();
  const Record left = result(1);
  EXPECT_EQ(left.calls, "ttd~");
  EXPECT_EQ(left.text, "ab");
  EXPECT_EQ(left.completion.reason, FinishReason::kCancelled);
  EXPECT_FALSE(left.completion.status.ok());
  EXPECT_EQ(result(2).completion.reason, FinishReason::kStop);
  EXPECT_EQ(result(3).calls, "d~");
}

TEST_F(OutputStageTest, UpdatesTheMetrics) {
  start(1);
  type(1, "abc");
  finish(1);
  const std::string text = metrics_.render();
  for (const char* line : {
           "pbserve:generation_tokens_total{model_name=\"test-model\"} 3",
           "pbserve:time_to_first_token_seconds_count{model_name=\"test-model\"} 1",
           "pbserve:inter_token_latency_seconds_count{model_name=\"test-model\"} 2",
           "pbserve:e2e_request_latency_seconds_count{model_name=\"test-model\"} 1",
           "pbserve:e2e_request_latency_seconds_bucket{model_name=\"test-model\",le=\"5\"} 0",
       }) {
    EXPECT_NE(text.find(line), std::string::npos) << line << " is not in\n" << text;
  }
}

TEST_F(OutputStageTest, ManyRequestsAtOnce) {
  constexpr Handle kNumRequests = 200;
  for (Handle handle = 0; handle < kNumRequests; ++handle) start(handle, {.stop_strings = {"zz"}});
  for (int round = 0; round < 50; ++round) {
    for (Handle handle = 0; handle < kNumRequests; ++handle)
      type(handle, round == 40 ? "zz" : "z_");
  }
  for (Handle handle = 0; handle < kNumRequests; ++handle) {
    const Record record = finish(handle);
    EXPECT_EQ(record.text.size(), 80u);
    EXPECT_EQ(record.calls.substr(record.calls.size() - 2), "d~");
  }
  EXPECT_EQ(stopped_.size(), kNumRequests);
}

TEST(OutputStageDeathTest, OutputOfAnUnknownRequestDies) {
  const ByteTokenizer tokenizer;
  Metrics metrics("m");
  EXPECT_DEATH(
      {
        OutputStage stage(tokenizer, metrics, [](OutputStage::Handle) {});
        stage.token(9, 'a', TokenRole::kText, Clock::now());
      },
      "has not started");
}

}  // namespace
}  // namespace pbserve::engine
