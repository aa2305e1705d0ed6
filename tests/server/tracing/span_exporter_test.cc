// The thread that sends spans, where memory runs out, and what it takes for a collector.
#include "server/tracing/span_exporter.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <new>
#include <string>
#include <thread>
#include <vector>

namespace {

std::atomic<bool> has_memory = true;
thread_local bool needs_memory = true;

}  // namespace

void* operator new(size_t size) {
  if (!has_memory && needs_memory) throw std::bad_alloc();
  void* const memory = std::malloc(size > 0 ? size : 1);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace pbserve::server {
namespace {

using std::chrono::milliseconds;

// Port 1 takes no connection: every batch that is sent is dropped, and counted.
constexpr char kNobody[] = "http://127.0.0.1:1/v1/traces";

bool waits_until_dropped(const SpanExporter& exporter, int64_t count) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (exporter.num_dropped() < count) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(milliseconds(5));
  }
  return true;
}

TEST(SpanExporter, AThreadWithoutMemoryGoesOnWhenThereIsSome) {
  needs_memory = false;  // of this thread
  auto exporter = *SpanExporter::start({.endpoint = kNobody,
                                        .resource = {},
                                        .max_export_batch_size = 4,
                                        .schedule_delay = milliseconds(10)});
  exporter->add(std::vector<Span>(1));
  EXPECT_TRUE(waits_until_dropped(*exporter, 1));
  has_memory = false;
  exporter->add(std::vector<Span>(4));
  std::this_thread::sleep_for(milliseconds(250));
  EXPECT_EQ(exporter->num_dropped(), 1) << "they wait";
  has_memory = true;
  EXPECT_TRUE(waits_until_dropped(*exporter, 5));
}

// It is shown at /config, in the start line and in warnings.
TEST(SpanExporter, AnEndpointWithAPasswordIsRefusedWithoutRepeatingIt) {
  for (const char* endpoint :
       {"http://user:sesame@collector:4318/v1/traces", "https://sesame@collector:4318/v1/traces",
        "http://:sesame@collector:4318/", "ftp://user:sesame@collector/",
        "user:sesame@collector:4318", "http://user:ses ame@collector:4318/"}) {
    const auto exporter = SpanExporter::start({.endpoint = endpoint, .resource = {}});
    ASSERT_FALSE(exporter.ok()) << endpoint;
    const std::string message(exporter.status().message());
    EXPECT_EQ(message.find("tracing.otlp_endpoint: must hold no user name"), 0u) << message;
    EXPECT_EQ(message.find("sesame"), std::string::npos) << message;
  }
  EXPECT_TRUE(SpanExporter::start({.endpoint = "http://127.0.0.1:1/v1/a@b", .resource = {}}).ok());
}

}  // namespace
}  // namespace pbserve::server
