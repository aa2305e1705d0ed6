// traceparent: what the standard accepts and what it has the receiver ignore.
#include "server/tracing/trace_context.h"

#include <gtest/gtest.h>

#include <string>

namespace pbserve::server {
namespace {

constexpr char kTrace[] = "4bf92f3577b34da6a3ce929d0e0e4736";
constexpr char kParent[] = "00f067aa0ba902b7";

std::string traceparent(const std::string& version, const std::string& trace,
                        const std::string& parent, const std::string& flags) {
  return version + "-" + trace + "-" + parent + "-" + flags;
}

TEST(Traceparent, IsRead) {
  const auto context = parse_traceparent(traceparent("00", kTrace, kParent, "01"));
  ASSERT_TRUE(context);
  EXPECT_EQ(to_hex(context->trace_id), kTrace);
  EXPECT_EQ(to_hex(context->parent_span_id), kParent);
  EXPECT_TRUE(context->is_sampled);
}

TEST(Traceparent, SamplingIsTheLowestFlag) {
  EXPECT_FALSE(parse_traceparent(traceparent("00", kTrace, kParent, "00"))->is_sampled);
  EXPECT_FALSE(parse_traceparent(traceparent("00", kTrace, kParent, "fe"))->is_sampled);
  EXPECT_TRUE(parse_traceparent(traceparent("00", kTrace, kParent, "03"))->is_sampled);
}

TEST(Traceparent, LaterVersionsMayHaveMore) {
  const std::string more = traceparent("cc", kTrace, kParent, "01");
  EXPECT_TRUE(parse_traceparent(more));
  EXPECT_TRUE(parse_traceparent(more + "-what-the-future-brings"));
  EXPECT_FALSE(parse_traceparent(more + "x"));
  EXPECT_FALSE(parse_traceparent(traceparent("00", kTrace, kParent, "01") + "-more"));
}

TEST(Traceparent, WhatIsNotWellFormedIsNoTrace) {
  const std::string zeros(32, '0');
  for (const std::string& value :
       {std::string(), std::string(55, '-'), traceparent("ff", kTrace, kParent, "01"),
        traceparent("00", zeros, kParent, "01"), traceparent("00", kTrace, zeros.substr(16), "01"),
        traceparent("00", "4BF92F3577B34DA6A3CE929D0E0E4736", kParent, "01"),
        traceparent("00", kTrace, "00f067aa0ba902bx", "01"),
        traceparent("0", kTrace, kParent, "001"), std::string("00-\0", 4)}) {
    EXPECT_FALSE(parse_traceparent(value)) << value;
  }
}

TEST(NewTrace, IsSampledAndItsOwn) {
  const TraceContext one = new_trace();
  EXPECT_NE(one.trace_id, new_trace().trace_id);
  EXPECT_EQ(one.parent_span_id, SpanId{});
  EXPECT_TRUE(one.is_sampled);
}

TEST(SpanIds, Differ) { EXPECT_NE(make_span_id(), make_span_id()); }

TEST(SpanIds, EveryByteIsDrawn) {
  SpanId any{};
  for (int i = 0; i < 200; ++i) {
    const SpanId id = make_span_id();
    for (size_t at = 0; at < id.size(); ++at) any[at] |= id[at];
  }
  for (const uint8_t byte : any) EXPECT_EQ(byte, 0xff);
}

}  // namespace
}  // namespace pbserve::server
