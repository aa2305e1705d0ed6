// Items that sleep stand in for work: a loaded machine can only make them longer.
#include "engine/slice_pacer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "kernels/ops/pbs.h"

namespace pbserve::engine {
namespace {

using kernels::kPbsBlock;

class SlicePacerTest : public testing::Test {
 protected:
  static constexpr int64_t kRowsMax = 8 * kPbsBlock;

  int64_t run(PrefillPass pass, int ms) {
    const int64_t rows = pacer_.begin_item(pass);
    std::this_thread::sleep_for(std::chrono::milliseconds(ms));
    pacer_.end_item(rows);
    return rows;
  }

  const kernels::Stream stream_ = *kernels::Stream::create({}, 1);
  SlicePacer pacer_{stream_, kRowsMax};
};

TEST_F(SlicePacerTest, AnItemThatWouldNotFitWaitsForTheNextSlice) {
  for (int slice = 0; slice < 3; ++slice) {
    pacer_.begin_slice(100);
    EXPECT_TRUE(slice > 0 || pacer_.fits(PrefillPass::kAttend)) << "nothing is known of it yet";
    run(PrefillPass::kAttend, 60);
    EXPECT_FALSE(pacer_.fits(PrefillPass::kAttend)) << "60 and 60 are more than 100";
  }
  pacer_.begin_slice(1000);
  EXPECT_TRUE(pacer_.fits(PrefillPass::kAttend));
}

TEST_F(SlicePacerTest, LongItemsShrinkToTheBlock) {
  pacer_.begin_slice(400);
  for (int i = 0; i < 4; ++i) EXPECT_LE(run(PrefillPass::kProject, 0), kRowsMax);
  EXPECT_GT(run(PrefillPass::kProject, 110), kPbsBlock);
  for (int i = 0; i < 4; ++i) run(PrefillPass::kProject, 110);
  EXPECT_EQ(run(PrefillPass::kProject, 110), kPbsBlock);
}

TEST_F(SlicePacerTest, EveryPassHasItsOwnPace) {
  pacer_.begin_slice(10'000);
  int64_t rows = 0;
  for (int i = 0; i < 6; ++i) {
    rows = run(PrefillPass::kProject, 0);
    run(PrefillPass::kAttend, 20);
  }
  EXPECT_EQ(rows, kRowsMax);
  pacer_.begin_slice(15);  // 20 ms and more for an attend item do not fit
  EXPECT_FALSE(pacer_.fits(PrefillPass::kAttend));
  EXPECT_TRUE(pacer_.fits(PrefillPass::kProject));
}

TEST_F(SlicePacerTest, TheShortRestOfAJobTeachesNothing) {
  pacer_.begin_slice(1000);
  for (int i = 0; i < 4; ++i) run(PrefillPass::kProject, 0);
  EXPECT_EQ(run(PrefillPass::kProject, 150), kRowsMax);  // 1/8 to 1/4 of the slice
  for (int i = 0; i < 3; ++i) {
    pacer_.begin_item(PrefillPass::kProject);
    pacer_.end_item(2);  // at once
  }
  pacer_.begin_slice(100);
  EXPECT_FALSE(pacer_.fits(PrefillPass::kProject));
}

}  // namespace
}  // namespace pbserve::engine
