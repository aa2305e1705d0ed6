// Streams on a part of a GPU: they keep to their multiprocessors (SMs), and compute what the whole
// GPU computes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/core/graph.h"
#include "kernels/ops/linear.h"
#include "kernels/ops/swiglu.h"
#include "tests/kernels/pbs_case.h"
#include "tests/kernels/sm_probe.h"
#include "tests/reference/ops_ref.h"

namespace pbserve::test {
namespace {

using kernels::Event;
using kernels::LinearWeight;
using kernels::PrefillSegment;

constexpr int kSms = 16;  // whole groups on Hopper

class PartitionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto choice = kernels::choose_device("cuda");
    if (!choice.ok()) GTEST_SKIP() << choice.status();
    device_ = choice->device;
    auto whole = Stream::create(device_, 0);
    ASSERT_TRUE(whole.ok()) << whole.status();
    whole_ = std::make_unique<Stream>(*std::move(whole));
    auto parts = Stream::partition(device_, kSms);
    ASSERT_TRUE(parts.ok()) << parts.status();
    parts_ = std::make_unique<std::pair<Stream, Stream>>(*std::move(parts));
  }

  std::vector<const Stream*> parts() const { return {&parts_->first, &parts_->second}; }

  // Random rows and a matrix that keeps products of about 1.
  struct Product {
    HostTensor x, w;
  };
  Product product(int64_t num_rows, int64_t num_out, int64_t num_in) {
    std::normal_distribution<double> normal(0, 1 / std::sqrt(static_cast<double>(num_in)));
    Product p{random_tensor(DType::kBF16, {num_rows, num_in}, random_),
              HostTensor(DType::kBF16, {num_out, num_in})};
    for (int64_t i = 0; i < p.w.view().numel(); ++i) p.w.set(i, normal(random_));
    return p;
  }

  std::mt19937 random_{21};
  kernels::Device device_;
  std::unique_ptr<Stream> whole_;
  std::unique_ptr<std::pair<Stream, Stream>> parts_;
};

TEST_F(PartitionTest, EveryPartKeepsToItsMultiprocessors) {
  const int total = whole_->num_sms();
  EXPECT_EQ(static_cast<int>(sms_of(*whole_).size()), total);
  const auto& [first, second] = *parts_;
  EXPECT_EQ(first.num_sms(), kSms);
  EXPECT_EQ(first.num_sms() + second.num_sms(), total);
  const std::vector<int> of_first = sms_of(first);
  const std::vector<int> of_second = sms_of(second);
  EXPECT_EQ(static_cast<int>(of_first.size()), first.num_sms());
  EXPECT_EQ(static_cast<int>(of_second.size()), second.num_sms());
  std::vector<int> common;
  std::ranges::set_intersection(of_first, of_second, std::back_inserter(common));
  EXPECT_TRUE(common.empty()) << common.size() << " SMs in both parts";
}

TEST_F(PartitionTest, AGraphKeepsToThePartItWasRecordedOn) {
  constexpr size_t kBytes = kSmsMax * sizeof(int32_t);
  const DeviceTensor seen(tensor_of(std::vector<int32_t>(kSmsMax)), parts_->first);
  probe_sms(seen.view(), parts_->first);
  auto graph =
      kernels::StepGraph::record(parts_->first, [&] { probe_sms(seen.view(), parts_->first); });
  ASSERT_TRUE(graph.ok()) << graph.status();
  kernels::fill_zero(seen.view().data, kBytes, parts_->first);
  graph->launch(parts_->first);
  const HostTensor counts = seen.read();
  const std::vector<int> expected = sms_of(parts_->first);
  std::vector<int> sms;
  for (int sm = 0; sm < kSmsMax; ++sm) {
    if (counts.view().as<int32_t>()[sm] > 0) sms.push_back(sm);
  }
  EXPECT_EQ(sms, expected);
}

TEST_F(PartitionTest, NoSuchNumberOfMultiprocessorsIsRefused) {
  for (const int num_sms : {-1, 0, whole_->num_sms(), whole_->num_sms() + 1}) {
    const auto parts = Stream::partition(device_, num_sms);
    EXPECT_EQ(parts.status().code(), absl::StatusCode::kInvalidArgument) << num_sms;
  }
}

// The first part works for some milliseconds and then writes; the other copies what it wrote.
TEST_F(PartitionTest, AnEventOfOnePartHoldsTheOther) {
  const auto& [first, second] = *parts_;
  const DeviceTensor values(tensor_of(std::vector<int32_t>(kSmsMax)), first);
  first.synchronize();
  Event written(first);
  probe_sms(values.view(), first);
  written.record(first);
  written.hold(second);
  std::vector<int32_t> seen(kSmsMax);
  kernels::copy_to_host(seen.data(), values.view().data, seen.size() * sizeof(int32_t), second);
  second.synchronize();
  EXPECT_TRUE(written.is_reached());
  EXPECT_EQ(static_cast<int>(std::ranges::count_if(seen, [](int n) { return n > 0; })),
            first.num_sms());
}

HostTensor run_linear(const HostTensor& x, const HostTensor& w, const Stream& stream) {
  const int64_t num_out = w.view().dim(0), num_in = w.view().dim(1);
  const int64_t numel = kernels::packed_weight_numel(stream.device(), num_out, num_in);
  const DeviceTensor packed(HostTensor(DType::kBF16, {numel}), stream);
  const LinearWeight weight{packed.view(), num_out, num_in};
  pack_weight({.weight = weight, .rows = w.view(), .row_begin = 0}, stream);
  const DeviceTensor device_x(x, stream);
  const DeviceTensor y(poisoned(DType::kBF16, {x.view().dim(0), num_out}), stream);
  linear({.y = y.view(), .x = device_x.view(), .weight = weight, .bias = {}}, stream);
  return y.read();
}

TEST_F(PartitionTest, LinearMatchesTheReference) {
  for (const auto& [rows, num_out, num_in] :
       {std::tuple{1, 1032, 512}, {16, 512, 2048}, {129, 256, 1024}, {1200, 256, 136}}) {
    SCOPED_TRACE(testing::Message() << rows << " x " << num_out << " x " << num_in);
    const Product p = product(rows, num_out, num_in);
    const auto expected = reference::linear_ref(p.x.values(), p.w.values(), {}, num_in);
    Tolerance tolerance = tolerance_of(DType::kBF16, num_in);
    tolerance.absolute *= 4;  // products of two normal values reach beyond 1
    for (const Stream* part : parts()) {
      EXPECT_TRUE(all_close(expected, run_linear(p.x, p.w, *part).values(), tolerance));
    }
  }
}

HostTensor run_swiglu(const HostTensor& x, const HostTensor& w, const Stream& stream) {
  const int64_t num_out = w.view().dim(0), num_in = w.view().dim(1);
  const int64_t rows = x.view().dim(0);
  const int64_t numel = kernels::packed_weight_numel(stream.device(), num_out, num_in);
  const DeviceTensor packed(HostTensor(DType::kBF16, {numel}), stream);
  const LinearWeight weight{packed.view(), num_out, num_in};
  pack_weight({.weight = weight, .rows = w.view(), .row_begin = 0}, stream);
  const DeviceTensor device_x(x, stream);
  const DeviceTensor scratch(poisoned(DType::kBF16, {rows, num_out}), stream);
  const DeviceTensor y(poisoned(DType::kBF16, {rows, num_out / 2}), stream);
  swiglu({.y = y.view(), .x = device_x.view(), .gate_up = weight, .scratch = scratch.view()},
         stream);
  return y.read();
}

// Rows enough for the kernel of clusters, whose tiles are the same on any number of SMs. Against
// the reference: both factors may be rounded before they are joined, and the result is (see
// swiglu_test).
TEST_F(PartitionTest, SwigluHasTheBitsOfTheWholeGpu) {
  constexpr int64_t kWidth = 264, kNumIn = 96;
  for (const int64_t rows : {513, 2304}) {
    const Product p = product(rows, 2 * kWidth, kNumIn);
    const HostTensor expected = run_swiglu(p.x, p.w, *whole_);
    const auto products = reference::linear_ref(p.x.values(), p.w.values(), {}, kNumIn);
    const auto joined = reference::silu_mul_ref(products, kWidth);
    for (const Stream* part : parts()) {
      const HostTensor y = run_swiglu(p.x, p.w, *part);
      EXPECT_TRUE(same_bits(expected.view(), y.view())) << rows;
      const auto values = y.values();
      for (size_t i = 0; i < values.size(); ++i) {
        const size_t at = i / kWidth * 2 * kWidth + i % kWidth;
        const double factors = std::abs(products[at] * products[at + kWidth]);
        ASSERT_NEAR(values[i], joined[i], 3.2 * 0x1p-8 * factors + 1e-4) << i;
      }
    }
  }
}

constexpr AttentionShape kShapes[] = {{6, 2, 64, DType::kBF16}, {8, 2, 128, DType::kBF16}};

TEST_F(PartitionTest, PrefillAttentionMatchesTheReferenceAndTheWholeGpu) {
  constexpr int32_t kLen = 700;
  for (const AttentionShape& shape : kShapes) {
    SCOPED_TRACE(shape.name());
    const Sequence sequence = planted_sequence(shape, kLen, random_);
    const PagedCache cache(shape, {&sequence, 1});
    const HostTensor q = to_tensor(sequence.q, shape.dtype);
    const PrefillSegment all{0, kLen, 0, 0};
    const auto expected =
        reference::attention_ref(sequence.q, sequence.k, sequence.v, 0, double(shape.scale()));
    const HostTensor whole = run_prefill(shape, DeviceCache(cache, *whole_), q, {&all, 1});
    const double error = prefill_error({.name = "cuda", .device = device_});
    for (const Stream* part : parts()) {
      const HostTensor out = run_prefill(shape, DeviceCache(cache, *part), q, {&all, 1});
      EXPECT_TRUE(same_bits(whole.view(), out.view()));
      for (int64_t row = 0; row < kLen; ++row) {
        for (int64_t h = 0; h < shape.num_q_heads; ++h) {
          ASSERT_TRUE(close_to(expected.at(row, h), out.view(), row, h, error));
        }
      }
    }
  }
}

TEST_F(PartitionTest, DecodeAttentionMatchesTheReferenceAndTheWholeGpu) {
  constexpr int32_t kLens[] = {1, 129, 4000, 700, 64};
  for (const AttentionShape& shape : kShapes) {
    SCOPED_TRACE(shape.name());
    std::vector<Sequence> sequences;
    std::vector<DecodeRow> rows;
    for (const int32_t len : kLens) {
      rows.push_back({.sequence = std::ssize(rows), .context_len = len});
      sequences.push_back(planted_sequence(shape, len, random_));
    }
    const auto q =
        random_heads(std::ssize(rows), shape.num_q_heads, shape.head_dim, shape.dtype, random_);
    const PagedCache cache(shape, sequences);
    const HostTensor of_rows = to_tensor(q, shape.dtype);
    const HostTensor whole = run_decode(shape, DeviceCache(cache, *whole_), of_rows, rows);
    const double error = decode_error({.name = "cuda", .device = device_});
    const int64_t group = shape.num_q_heads / shape.num_kv_heads;
    for (const Stream* part : parts()) {
      const HostTensor out = run_decode(shape, DeviceCache(cache, *part), of_rows, rows);
      EXPECT_TRUE(same_bits(whole.view(), out.view()));
      for (const DecodeRow& row : rows) {
        const Sequence& sequence = sequences[static_cast<size_t>(row.sequence)];
        std::vector<int64_t> positions(static_cast<size_t>(row.context_len));
        for (size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<int64_t>(i);
        for (int64_t h = 0; h < shape.num_q_heads; ++h) {
          const auto expected = reference::attend_ref(q.at(row.sequence, h), sequence.k, sequence.v,
                                                      h / group, positions, double(shape.scale()));
          ASSERT_TRUE(close_to(expected, out.view(), row.sequence, h, error)) << row.context_len;
        }
      }
    }
  }
}

// All steps of PBS, among them one of clusters that are not persistent.
TEST_F(PartitionTest, PbsMatchesTheReferenceAndTheWholeGpu) {
  constexpr AttentionShape kShape{4, 2, 128, DType::kBF16};
  const PbsJob job = job_of(1024, 3072);
  const auto run = [&](const Stream& stream) {
    auto pbs = std::make_unique<PbsCase>(stream, kShape, job, PbsParams{});
    pbs->order();
    pbs->select();
    pbs->prefill();
    return pbs;
  };
  const auto whole = run(*whole_);
  for (const Stream* part : parts()) {
    const auto pbs = run(*part);
    EXPECT_TRUE(same_bits(whole->k_pages().view(), pbs->k_pages().view()));
    EXPECT_TRUE(same_bits(whole->out(), pbs->out()));
    EXPECT_TRUE(output_matches(*pbs, 61));
  }
}

}  // namespace
}  // namespace pbserve::test
