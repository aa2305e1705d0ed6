// The mask of a forced density: within the causal blocks, as dense as asked, the same everywhere.
#include "kernels/ops/pbs_force.h"

#include <gtest/gtest.h>

#include <bit>

#include "tests/support/backends.h"
#include "tests/support/random_tensor.h"

namespace pbserve::test {
namespace {

using kernels::kPbsBlock;
using kernels::PbsJob;
using kernels::Tensor;

constexpr int32_t kNumHeads = 3;
constexpr int32_t kSegment = 256;

struct Forced {
  HostTensor mask;
  int64_t num_selected;
};

class PbsForceTest : public ::testing::TestWithParam<Backend> {
 protected:
  Forced run(PbsJob job, int32_t block_begin, int32_t block_end, float density) {
    const int64_t num_words = kernels::ceil_div(job.end / kPbsBlock, 32);
    const int64_t num_blocks = kernels::ceil_div(job.num_rows(), kPbsBlock);
    const std::vector<uint32_t> all_set(static_cast<size_t>(kNumHeads * num_blocks * num_words),
                                        ~0u);
    const DeviceTensor mask(tensor_of(all_set, {kNumHeads, num_blocks, num_words}), stream_);
    const DeviceTensor count(tensor_of(std::vector<int64_t>{5}), stream_);
    pbs_force_mask({.mask = mask.view(),
                    .job = job,
                    .block_begin = block_begin,
                    .block_end = block_end,
                    .num_selected = count.view(),
                    .segment = kSegment,
                    .density = density},
                   stream_);
    const HostTensor counted = count.read();
    return {mask.read(), counted.view().as<int64_t>()[0] - 5};
  }

  kernels::Stream stream_ = stream_of(GetParam());
};
INSTANTIATE_TEST_SUITE_P(Backends, PbsForceTest, ::testing::ValuesIn(backends()), backend_name);

TEST_P(PbsForceTest, TakesTheShareAskedForAndNothingBeyondTheCandidates) {
  const PbsJob job{.begin = 8192, .end = 16000, .span_len = 1024, .prompt_len = 16000};
  const int32_t first = job.begin / kPbsBlock;
  const int32_t num_blocks = kernels::ceil_div(job.num_rows(), kPbsBlock);
  for (const float density : {0.01f, 0.22f, 1.0f}) {
    const Forced forced = run(job, 0, num_blocks, density);
    const Tensor mask = forced.mask.view();
    int64_t num_bits = 0;
    for (int32_t head = 0; head < kNumHeads; ++head) {
      for (int32_t block = 0; block < num_blocks; ++block) {
        const int32_t candidates = (first + block) / 2 * 2;
        const uint32_t share = kernels::forced_share(first + block, candidates, density);
        const uint32_t* words =
            mask.as<uint32_t>() + (int64_t{head} * num_blocks + block) * mask.dim(2);
        num_bits += first + block + 1 - candidates;  // the own segment
        for (int32_t j = 0; j < mask.dim(2) * 32; ++j) {
          const bool taken = (words[j / 32] >> (j % 32) & 1) != 0;
          const bool wanted = j < candidates && kernels::is_forced(head, first + block, j, share);
          ASSERT_EQ(taken, wanted) << "head " << head << " block " << block << " candidate " << j;
          num_bits += taken;
        }
      }
    }
    EXPECT_EQ(forced.num_selected, num_bits);
    const auto causal =
        static_cast<double>(kernels::num_causal_blocks({job.begin, job.end}, kNumHeads));
    const double got = static_cast<double>(num_bits) / causal;
    // Below the share of the own segments (1.5 of 96 blocks) nothing can be forced.
    EXPECT_NEAR(got, std::max(density, 0.0157f), density == 1.0f ? 0 : 0.01) << density;
  }
}

TEST_P(PbsForceTest, WritesTheRowsOfItsBlocksAlone) {
  const Forced forced = run({0, 2048, 1024, 2048}, 3, 7, 0.5f);
  const Tensor mask = forced.mask.view();
  for (int64_t row = 0; row < mask.dim(0) * mask.dim(1); ++row) {
    const int64_t block = row % mask.dim(1);
    const bool written = mask.as<uint32_t>()[row * mask.dim(2)] != ~uint32_t{0};
    EXPECT_EQ(written, block >= 3 && block < 7) << row;
  }
}

}  // namespace
}  // namespace pbserve::test
