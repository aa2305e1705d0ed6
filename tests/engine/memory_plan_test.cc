// How a device's memory is divided, on made-up devices.
#include "engine/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/ops/rope.h"
#include "tests/support/backends.h"
#include "tests/support/tiny_model.h"

namespace pbserve::engine {
namespace {

using kernels::DType;
using kernels::kPageSize;
using ::testing::HasSubstr;

constexpr int64_t kGiB = int64_t{1} << 30;
constexpr kernels::Device kCpu{.kind = kernels::DeviceKind::kCpu};
constexpr kernels::Device kGpu{.kind = kernels::DeviceKind::kCuda};

EngineConfig with_share(double utilization) {
  EngineConfig config;
  config.device.gpu_memory_utilization = utilization;
  return config;
}

models::ModelConfig tiny_model() {
  return *models::parse_model_config(test::tiny_config({}).dump(), "", "config.json");
}

int64_t page_bytes(const models::ModelConfig& model) {
  return KvCacheShape{.num_layers = model.num_layers,
                      .num_kv_heads = model.num_kv_heads,
                      .head_dim = model.head_dim,
                      .dtype = DType::kBF16}
      .page_bytes();
}

// A card of 80 GiB with this server's weights of 10, and what others hold.
DeviceMemory card(int64_t others) {
  return {.total_bytes = 80 * kGiB, .free_bytes = 70 * kGiB - others, .taken_bytes = 10 * kGiB};
}

TEST(UsableBytes, AGpuGivesTheRestOfTheServersShareWhateverOthersHold) {
  const EngineConfig config = with_share(0.25);
  const auto alone = usable_bytes(config, kGpu, card(0));
  ASSERT_TRUE(alone.ok()) << alone.status();
  // 20 GiB less 10 of weights and 1 for the driver.
  EXPECT_EQ(*alone, 9 * kGiB);
  // Others that have taken their shares, or are about to, change nothing.
  for (const int64_t others : {1, 20, 40, 60}) {
    EXPECT_EQ(*usable_bytes(config, kGpu, card(others * kGiB)), *alone) << others;
  }
}

TEST(UsableBytes, AShareThatOthersHoldIsRefusedWithTheNumbers) {
  const absl::Status status = usable_bytes(with_share(0.25), kGpu, card(62 * kGiB)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(std::string(status.message()),
            "device.gpu_memory_utilization 0.25 is a share of 21474836480 of the GPU's 85899345920 "
            "bytes; beside weights of 10737418240 it leaves 9663676416 to take, of which "
            "8321499136 are free: other processes and the driver hold 66571993088; lower "
            "--gpu-memory-utilization or make room");
}

TEST(UsableBytes, AWholeCardLeavesTheDriverItsPart) {
  constexpr int64_t kContext = 600 << 20;
  const auto usable = usable_bytes(with_share(1.0), kGpu, card(kContext));
  ASSERT_TRUE(usable.ok()) << usable.status();
  EXPECT_LT(*usable, 70 * kGiB - kContext);
  EXPECT_GT(*usable, 68 * kGiB);
}

TEST(UsableBytes, WithoutAShareItIsWhatIsFree) {
  EngineConfig config = with_share(0.01);
  EXPECT_EQ(*usable_bytes(config, kCpu, card(60 * kGiB)), 10 * kGiB);
  config.device.kv_cache_bytes = 1;
  const int64_t usable = *usable_bytes(config, kGpu, card(60 * kGiB));
  EXPECT_GT(usable, 9 * kGiB);
  EXPECT_LT(usable, 10 * kGiB) << "code that is loaded later has its place";
}

class PlanMemory : public ::testing::TestWithParam<test::Backend> {
 protected:
  absl::StatusOr<MemoryPlan> plan(const EngineConfig& config, const DeviceMemory& memory) const {
    return plan_memory(config, model_, DType::kBF16, GetParam().device, memory);
  }
  std::string refusal(const EngineConfig& config, const DeviceMemory& memory) const {
    return std::string(plan(config, memory).status().message());
  }
  bool is_cpu() const { return GetParam().device.kind == kernels::DeviceKind::kCpu; }
  int64_t context_bytes() const {
    return kernels::ceil_div<int64_t>(model_.max_position, kPageSize) * page_bytes(model_);
  }

  models::ModelConfig model_ = tiny_model();  // 4,096 positions
};
INSTANTIATE_TEST_SUITE_P(Backends, PlanMemory, ::testing::ValuesIn(test::backends()),
                         test::backend_name);

TEST_P(PlanMemory, AnAutomaticCacheHoldsFourContextsOnTheCpuAndTheShareOnAGpu) {
  const auto all = plan({}, card(0));
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_EQ(all->max_model_len, 4096);
  EXPECT_EQ(all->limited_by, "the model's positions");
  const int64_t bytes = all->num_pages * page_bytes(model_);
  if (is_cpu()) {
    EXPECT_EQ(bytes, 4 * context_bytes());
  } else {
    EXPECT_GT(bytes, 60 * kGiB);
    EXPECT_LE(bytes, 61 * kGiB);  // 72 less 10 of weights and 1 for the driver
  }
}

TEST_P(PlanMemory, ASmallCacheBoundsAnAutomaticContext) {
  EngineConfig config;
  config.device.kv_cache_bytes = 3 * page_bytes(model_) + 1;
  const auto small = plan(config, card(0));
  ASSERT_TRUE(small.ok()) << small.status();
  EXPECT_EQ(small->num_pages, 3);
  EXPECT_EQ(small->max_model_len, 3 * kPageSize);
  EXPECT_EQ(small->limited_by, "the KV cache");
  EXPECT_EQ(small->runner.max_model_len, 3 * kPageSize);
}

TEST_P(PlanMemory, AContextThatIsAskedForIsGivenOrRefused) {
  EngineConfig config;
  config.model.max_model_len = 1000;
  const auto given = plan(config, card(0));
  ASSERT_TRUE(given.ok()) << given.status();
  EXPECT_EQ(given->max_model_len, 1000);
  EXPECT_EQ(given->limited_by, "--max-model-len");

  config.device.kv_cache_bytes = 3 * page_bytes(model_);
  EXPECT_THAT(refusal(config, card(0)), HasSubstr("a context of 1000 tokens needs"));
  config.device.kv_cache_bytes = 100 * kGiB;
  EXPECT_THAT(refusal(config, card(0)),
              HasSubstr("device.kv_cache_bytes is 107374182400, beside a workspace of"));
  config.model.max_model_len = 4097;
  EXPECT_THAT(refusal(config, card(0)),
              HasSubstr("model.max_model_len is 4097, the model's positions end at 4096"));
}

TEST_P(PlanMemory, TheHostTierIsPartOfTheHostsMemory) {
  EngineConfig config;
  config.device.kv_cache_bytes = context_bytes();
  const DeviceMemory memory{.total_bytes = 80 * kGiB,
                            .free_bytes = 60 * kGiB,
                            .taken_bytes = 0,
                            .host_free_bytes = is_cpu() ? 60 * kGiB : 20 * kGiB};
  EXPECT_EQ(plan(config, memory)->num_host_pages, 0);
  config.device.kv_offload_bytes = 5 * page_bytes(model_) + 1;
  const auto given = plan(config, memory);
  ASSERT_TRUE(given.ok()) << given.status();
  EXPECT_EQ(given->num_host_pages, 5);
  config.device.kv_offload_bytes = page_bytes(model_) - 1;
  EXPECT_THAT(refusal(config, memory), HasSubstr("must be 0 or hold at least one page of"));
  config.device.kv_offload_bytes = (is_cpu() ? 60 : 20) * kGiB + 1;
  EXPECT_THAT(refusal(config, memory), HasSubstr("lower --kv-offload-bytes"));
  config.device.kv_offload_bytes = (is_cpu() ? 50 : 20) * kGiB;
  EXPECT_TRUE(plan(config, memory).ok()) << refusal(config, memory);
}

TEST_P(PlanMemory, TooLittleMemoryIsRefusedWithWhatWidensIt) {
  if (is_cpu()) {
    EXPECT_THAT(refusal({}, {.total_bytes = kGiB}), HasSubstr("raise --kv-cache-memory-bytes"));
  } else {
    EXPECT_THAT(refusal(with_share(0.1), card(0)), HasSubstr("raise --gpu-memory-utilization"));
  }
}

}  // namespace
}  // namespace pbserve::engine
