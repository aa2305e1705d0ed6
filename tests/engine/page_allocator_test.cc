#include "engine/page_allocator.h"

#include <gtest/gtest.h>

namespace pbserve::engine {
namespace {

TEST(PageAllocator, HandsOutLowIdsFirstThenTheLastFreed) {
  PageAllocator pages(4);
  EXPECT_EQ(pages.take(), 0);
  EXPECT_EQ(pages.take(), 1);
  EXPECT_EQ(pages.take(), 2);
  EXPECT_EQ(pages.num_free(), 1);
  pages.drop_ref(0);
  pages.drop_ref(2);
  EXPECT_EQ(pages.take(), 2);
  EXPECT_EQ(pages.take(), 0);
  EXPECT_EQ(pages.take(), 3);
  EXPECT_EQ(pages.num_free(), 0);
  pages.check_integrity();
}

TEST(PageAllocator, APageIsFreeWhenItsLastReferenceGoes) {
  PageAllocator pages(2);
  const int32_t page = pages.take();
  pages.add_ref(page);
  EXPECT_EQ(pages.num_refs(page), 2);
  EXPECT_EQ(pages.drop_ref(page), 1);
  EXPECT_EQ(pages.num_free(), 1);
  EXPECT_EQ(pages.drop_ref(page), 0);
  EXPECT_EQ(pages.num_free(), 2);
  pages.check_integrity();
}

TEST(PageAllocator, BothEndsOfTheRow) {
  PageAllocator allocator(4);
  EXPECT_EQ(allocator.take(RowEnd::kFront), 3);
  EXPECT_EQ(allocator.take(), 0);
  EXPECT_EQ(allocator.drop_ref(3, RowEnd::kFront), 0);
  EXPECT_EQ(allocator.drop_ref(0, RowEnd::kFront), 0);
  allocator.check_integrity();
  EXPECT_EQ(allocator.take(), 1) << "what was freed to the front waits longest";
  EXPECT_EQ(allocator.take(), 2);
  EXPECT_EQ(allocator.take(), 3);
  EXPECT_EQ(allocator.take(), 0);
}

TEST(PageAllocatorDeathTest, MisuseDies) {
  PageAllocator pages(1);
  EXPECT_DEATH(pages.drop_ref(0), "page freed twice");
  EXPECT_DEATH(pages.add_ref(0), "reference to a free page");
  pages.take();
  EXPECT_DEATH(pages.take(), "no free page");
}

}  // namespace
}  // namespace pbserve::engine
