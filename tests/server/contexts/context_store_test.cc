// Named contexts: bounds, time, who sees them, and what is asked of the engine for them.
#include "server/contexts/context_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "server/api_error.h"

namespace pbserve::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Ids = std::vector<int32_t>;

constexpr int64_t kPage = 4;

engine::PbsOptions pbs_options(engine::SparseMode mode, int64_t span, int64_t min_tokens) {
  engine::PbsOptions pbs;
  pbs.mode = mode;
  pbs.span = span;
  pbs.min_tokens = min_tokens;
  return pbs;
}

// Takes every prefill, and finishes it when the test says so. Bytes are tokens.
class FakeEngine {
 public:
  ContextEngine engine() {
    return {.tokenize = [](const engine::Prompt& prompt, bool) -> absl::StatusOr<Ids> {
              if (const auto* ids = std::get_if<Ids>(&prompt)) return *ids;
              const auto& text = std::get<std::string>(prompt);
              return Ids(text.begin(), text.end());
            },
            .check =
                [](const engine::Request& request) {
                  return request.cache_salt == "bad" ? absl::InvalidArgumentError("cache_salt")
                                                     : absl::OkStatus();
                },
            .submit =
                [this](engine::Request request, std::unique_ptr<engine::ResponseSink> sink) {
                  return submit(std::move(request), std::move(sink));
                },
            .cancel = [this](engine::Engine::Handle handle) { num_cancelled_ += handle != 0; },
            .now = [this] { return ContextClock::time_point(std::chrono::seconds(now_s)); },
            .page_size = kPage,
            .max_model_len = 100,
            .pbs = pbs};
  }

  absl::StatusOr<engine::Engine::Handle> submit(engine::Request request,
                                                std::unique_ptr<engine::ResponseSink> sink) {
    if (request.on_sized) RETURN_IF_ERROR(request.on_sized(std::ssize(tokens_of(request)) + 1));
    const std::lock_guard lock(mutex_);
    requests_.push_back(std::move(request));
    sinks_.push_back(std::move(sink));
    return sinks_.size();
  }

  static const Ids& tokens_of(const engine::Request& request) {
    return std::get<Ids>(request.prompt);
  }

  // The prompt of prefill `i`, once it is there.
  engine::Request request(size_t i) {
    while (true) {
      {
        const std::lock_guard lock(mutex_);
        if (requests_.size() > i) return requests_[i];
      }
      std::this_thread::yield();
    }
  }
  void finish(size_t i) {
    const auto num_tokens = std::ssize(tokens_of(request(i)));
    std::unique_ptr<engine::ResponseSink> sink;
    {
      const std::lock_guard lock(mutex_);
      sink = std::move(sinks_[i]);
    }
    engine::Completion completion;
    completion.reason = engine::FinishReason::kLength;
    completion.usage.prompt_tokens = num_tokens;
    sink->on_done(completion);
  }
  size_t num_requests() {
    const std::lock_guard lock(mutex_);
    return requests_.size();
  }
  int64_t num_cancelled() const { return num_cancelled_; }

  std::atomic<int64_t> now_s = 1000;
  engine::PbsOptions pbs = pbs_options(engine::SparseMode::kDense, 1024, 1);

 private:
  std::mutex mutex_;
  std::vector<engine::Request> requests_;
  std::vector<std::unique_ptr<engine::ResponseSink>> sinks_;
  std::atomic<int64_t> num_cancelled_ = 0;
};

Caller caller_of_key() {
  return {.address = {}, .key_name = {}, .key_use = std::make_shared<KeyUse>(KeyLimits{})};
}

class ContextStoreTest : public ::testing::Test {
 protected:
  void SetUp() override { start({}); }
  void start(const ContextOptions& options) {
    store_.reset();
    store_ = std::make_unique<ContextStore>(fake_.engine(), options);
  }
  // The id of one with these ids.
  std::string make(const Caller& caller, Ids ids, bool is_last, ContextHeader header = {}) {
    const auto info =
        store_->create(caller, header, {.prompt = std::move(ids), .is_last = is_last});
    EXPECT_TRUE(info.ok()) << info.status();
    return info.ok() ? info->id : "";
  }

  FakeEngine fake_;
  std::unique_ptr<ContextStore> store_;
  const Caller nobody_;  // where no keys are asked for
};

TEST_F(ContextStoreTest, PrefillBeginsBeforeTheLastPartAndGoesOnAtItsEnd) {
  const std::string id = make(nobody_, Ids(9, 1), false);
  EXPECT_EQ(FakeEngine::tokens_of(fake_.request(0)), Ids(9, 1));
  EXPECT_EQ(fake_.request(0).stop.max_tokens, 1);
  ASSERT_TRUE(store_->append(nobody_, id, {.prompt = Ids(10, 2), .is_last = false}).ok());
  ASSERT_TRUE(store_->append(nobody_, id, {.prompt = Ids(3, 3), .is_last = true}).ok());
  EXPECT_EQ(fake_.num_requests(), 1u);  // one at a time
  EXPECT_EQ(store_->get(nobody_, id)->prefilled_tokens, 0);
  fake_.finish(0);
  EXPECT_EQ(FakeEngine::tokens_of(fake_.request(1)).size(), 22u);
  EXPECT_EQ(store_->get(nobody_, id)->prefilled_tokens, 9);
  fake_.finish(1);
  EXPECT_EQ(store_->get(nobody_, id)->prefilled_tokens, 22);
}

TEST_F(ContextStoreTest, LessThanAPageIsNotWorthARequest) {
  make(nobody_, Ids(kPage - 1, 1), true);
  make(nobody_, Ids(kPage, 2), true);
  EXPECT_EQ(FakeEngine::tokens_of(fake_.request(0)), Ids(kPage, 2));
  EXPECT_EQ(fake_.num_requests(), 1u);
}

TEST_F(ContextStoreTest, AutomaticAttentionIsDecidedOnceItIsKnown) {
  fake_.pbs = pbs_options(engine::SparseMode::kAuto, 8, 20);
  start({});
  const std::string small = make(nobody_, Ids(10, 1), true);
  EXPECT_EQ(fake_.request(0).sparse.mode, engine::SparseMode::kDense);
  engine::Request request;
  request.prompt = Ids(30, 5);
  ASSERT_TRUE(store_->use(nobody_, small, &request).ok());
  EXPECT_EQ(request.sparse.mode, engine::SparseMode::kDense);  // as its pages were made

  const std::string large = make(nobody_, Ids(19, 1), false);
  ASSERT_TRUE(store_->append(nobody_, large, {.prompt = Ids(1, 1), .is_last = false}).ok());
  EXPECT_EQ(FakeEngine::tokens_of(fake_.request(1)).size(), 20u);  // none before that
  EXPECT_EQ(fake_.request(1).sparse.mode, engine::SparseMode::kPbs);
}

TEST_F(ContextStoreTest, ARequestGetsTheContextsTokensSaltAndAttention) {
  const std::string id =
      make(nobody_, {7, 8}, true,
           {.cache_salt = "s", .sparse = {.mode = engine::SparseMode::kPbs, .threshold = 0.5f}});
  engine::Request request;
  request.prompt = std::string("a");
  ASSERT_TRUE(store_->use(nobody_, id, &request).ok());
  EXPECT_THAT(FakeEngine::tokens_of(request), ElementsAre(7, 8, 'a'));
  EXPECT_EQ(request.cache_salt, "s");
  EXPECT_FALSE(request.add_special_tokens);
  EXPECT_EQ(request.sparse.mode, engine::SparseMode::kPbs);
  EXPECT_EQ(request.sparse.threshold, 0.5f);
  engine::Request own;
  own.prompt = Ids{1};
  own.sparse.mode = engine::SparseMode::kDense;
  ASSERT_TRUE(store_->use(nobody_, id, &own).ok());
  EXPECT_EQ(own.sparse.mode, engine::SparseMode::kDense);
}

TEST_F(ContextStoreTest, AnotherKeysContextDoesNotExist) {
  const Caller a = caller_of_key();
  const Caller b = caller_of_key();
  const std::string id = make(a, {1, 2}, true);
  engine::Request request;
  request.prompt = Ids{1};
  for (const Caller& other : {b, nobody_}) {
    EXPECT_EQ(http_status(store_->get(other, id).status()), 404);
    EXPECT_EQ(http_status(store_->append(other, id, {.prompt = Ids{1}, .is_last = false}).status()),
              404);
    EXPECT_EQ(http_status(store_->remove(other, id)), 404);
    EXPECT_EQ(http_status(store_->use(other, id, &request)), 404);
    EXPECT_THAT(store_->list(other), IsEmpty());
  }
  EXPECT_EQ(store_->list(a).size(), 1u);
  EXPECT_TRUE(store_->remove(a, id).ok());
  EXPECT_EQ(http_status(store_->remove(a, id)), 404);
}

TEST_F(ContextStoreTest, ItIsGoneAfterItsTimeUnlessItIsUsed) {
  const std::string id = make(nobody_, Ids(8, 1), true, {.ttl_s = 10});
  fake_.request(0);
  fake_.now_s = 1009;
  engine::Request request;
  request.prompt = Ids{1};
  EXPECT_TRUE(store_->use(nobody_, id, &request).ok());
  fake_.now_s = 1018;
  EXPECT_TRUE(store_->get(nobody_, id).ok());  // a look is no use
  fake_.now_s = 1019;
  EXPECT_EQ(http_status(store_->get(nobody_, id).status()), 404);
  EXPECT_EQ(store_->totals().bytes, 0);
  EXPECT_EQ(store_->totals().num_contexts, 0);
}

TEST_F(ContextStoreTest, DeletingCancelsItsPrefill) {
  const std::string id = make(nobody_, Ids(8, 1), false);
  fake_.request(0);
  ASSERT_TRUE(store_->remove(nobody_, id).ok());
  while (fake_.num_cancelled() == 0) std::this_thread::yield();  // at the latest once it is taken
  fake_.finish(0);
}

TEST_F(ContextStoreTest, StopCancelsWhatIsUnderWayAndStartsNothing) {
  const std::string id = make(nobody_, Ids(8, 1), false);
  fake_.request(0);
  store_->stop();
  EXPECT_EQ(fake_.num_cancelled(), 1);
  EXPECT_TRUE(store_->append(nobody_, id, {.prompt = Ids(9, 1), .is_last = true}).ok());
  fake_.finish(0);
  EXPECT_EQ(fake_.num_requests(), 1u);
}

TEST_F(ContextStoreTest, NumberAndBytesAreBoundedInAllAndByKey) {
  start({.max_contexts = 3,
         .max_contexts_per_key = 2,
         .max_bytes = 1 << 20,
         .max_bytes_per_key = 3000});
  const Caller a = caller_of_key();
  const Caller b = caller_of_key();
  const std::string id = make(a, {1}, false);
  make(a, {1}, false);
  auto refused = store_->create(a, {}, {});
  EXPECT_EQ(http_status(refused.status()), 429);
  EXPECT_THAT(to_error_body(refused.status()), HasSubstr("contexts.max_contexts_per_key = 2"));
  refused = store_->append(a, id, {.prompt = Ids(90, 1), .is_last = false});
  EXPECT_TRUE(refused.ok());
  refused = store_->append(a, id, {.prompt = std::string(3000, 'x'), .is_last = false});
  EXPECT_EQ(http_status(refused.status()), 429);
  EXPECT_THAT(to_error_body(refused.status()), HasSubstr("contexts.max_bytes_per_key = 3000"));
  EXPECT_EQ(store_->get(a, id)->num_tokens, 91);  // a failure changes nothing
  make(b, {1}, false);
  refused = store_->create(b, {}, {});
  EXPECT_THAT(to_error_body(refused.status()), HasSubstr("contexts.max_contexts = 3"));
  EXPECT_TRUE(store_->remove(a, id).ok());
  EXPECT_TRUE(store_->create(b, {}, {}).ok());
}

TEST_F(ContextStoreTest, MoreTokensThanTheModelTakesAreRefusedWithTheNumbers) {
  const std::string id = make(nobody_, Ids(60, 1), false);
  const auto refused = store_->append(nobody_, id, {.prompt = Ids(40, 1), .is_last = true});
  EXPECT_EQ(http_status(refused.status()), 400);
  EXPECT_THAT(to_error_body(refused.status()), HasSubstr(R"("param":"prompt")"));
  EXPECT_THAT(to_error_body(refused.status()), HasSubstr("100 tokens, at most 99"));
  EXPECT_FALSE(store_->get(nobody_, id)->is_ready);
}

TEST_F(ContextStoreTest, TheEndOfItsTextCountsOnceNoMoreComes) {
  const std::string id = make(nobody_, Ids(60, 1), false);
  const engine::Prompt text = std::string(40, '.');  // nothing of it is decided before the end
  ASSERT_TRUE(store_->append(nobody_, id, {.prompt = text, .is_last = false}).ok());
  EXPECT_EQ(store_->get(nobody_, id)->num_tail_bytes, 40);
  const auto refused = store_->append(nobody_, id, {.prompt = {}, .is_last = true});
  EXPECT_EQ(http_status(refused.status()), 400);
  EXPECT_THAT(to_error_body(refused.status()), HasSubstr("100 tokens, at most 99"));
  EXPECT_FALSE(store_->get(nobody_, id)->is_ready);
}

TEST_F(ContextStoreTest, WhatACreationCannotHoldLeavesNothing) {
  EXPECT_EQ(
      http_status(store_->create(nobody_, {}, {.prompt = Ids(100, 1), .is_last = false}).status()),
      400);
  EXPECT_EQ(http_status(store_->create(nobody_, {.cache_salt = "bad"}, {}).status()), 400);
  EXPECT_EQ(http_status(store_->create(nobody_, {.ttl_s = 86401}, {}).status()), 400);
  EXPECT_EQ(http_status(store_->create(nobody_, {.ttl_s = 0}, {}).status()), 400);
  EXPECT_EQ(http_status(store_->create(nobody_, {.name = std::string(129, 'n')}, {}).status()),
            400);
  EXPECT_EQ(store_->totals().num_contexts, 0);
  EXPECT_EQ(store_->totals().bytes, 0);
}

TEST_F(ContextStoreTest, OpenOnesAreNotUsedAndReadyOnesTakeNothing) {
  const std::string id = make(nobody_, {1}, false);
  engine::Request request;
  request.prompt = Ids{1};
  EXPECT_EQ(http_status(store_->use(nobody_, id, &request)), 409);
  ASSERT_TRUE(store_->append(nobody_, id, {.prompt = {}, .is_last = true}).ok());
  EXPECT_TRUE(store_->use(nobody_, id, &request).ok());
  EXPECT_EQ(http_status(store_->append(nobody_, id, {.prompt = Ids{1}, .is_last = false}).status()),
            409);
}

TEST_F(ContextStoreTest, APrefillTakesAPlaceOfItsKey) {
  Caller caller = caller_of_key();
  caller.key_use = std::make_shared<KeyUse>(KeyLimits{.max_requests = 1});
  make(caller, Ids(8, 1), true);
  fake_.request(0);
  EXPECT_EQ(caller.key_use->num_requests(), 1);
  EXPECT_EQ(caller.key_use->num_tokens(), 9);
  fake_.finish(0);
  EXPECT_EQ(caller.key_use->num_requests(), 0);
  EXPECT_EQ(caller.key_use->num_tokens(), 0);
}

TEST_F(ContextStoreTest, ManyThreadsLeaveNothingBehind) {
  const Caller caller = caller_of_key();
  std::vector<std::thread> threads;
  const std::string shared = make(caller, {1}, false);
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        const auto made = store_->create(caller, {}, {.prompt = Ids{1}, .is_last = i % 2 == 0});
        (void)store_->append(caller, shared, {.prompt = std::string("a"), .is_last = false});
        (void)store_->list(caller);
        EXPECT_TRUE(!made.ok() || store_->remove(caller, made->id).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(store_->totals().num_contexts, 1);
  EXPECT_TRUE(store_->remove(caller, shared).ok());
  EXPECT_EQ(store_->totals().bytes, 0);
}

}  // namespace
}  // namespace pbserve::server
