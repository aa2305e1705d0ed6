#include "engine/batch_builder.h"

#include <gtest/gtest.h>

#include "kernels/ops/sample.h"
#include "tests/engine/sequence_factory.h"

namespace pbserve::engine {
namespace {

class BatchBuilderTest : public testing::Test {
 protected:
  // A sequence with a slot and the pages its tokens and the next one need.
  void add(SequenceId id, int64_t num_prompt, int32_t slot, int32_t first_token) {
    auto sequence = std::make_unique<Sequence>(make_spec(id, num_prompt, 100, first_token));
    ASSERT_TRUE(pool_->allocate(sequence->blocks, static_cast<int32_t>(num_prompt / 128 + 1)));
    sequence->start_prefill(0, slot);
    sequences_.emplace(id, std::move(sequence));
  }
  int32_t page(SequenceId id, int32_t index) { return sequences_.at(id)->blocks.page(index); }

  std::unique_ptr<KvCachePool> pool_ = make_pool(16);
  SequenceMap sequences_;
};

TEST_F(BatchBuilderTest, DecodeRowsByExactArrays) {
  add(1, 130, 3, 0);
  add(2, 5, 0, 1000);
  const std::vector<DecodeRow> rows = {{1, 130}, {2, 5}};
  const DecodeBatch batch = build_decode_batch(rows, sequences_, 3);
  EXPECT_EQ(batch.sequence_slots, (std::vector<int32_t>{3, 0}));
  EXPECT_EQ(batch.positions, (std::vector<int32_t>{130, 5}));
  EXPECT_EQ(batch.context_lens, (std::vector<int32_t>{131, 6}));
  EXPECT_EQ(batch.kv_slots, (std::vector<int64_t>{page(1, 1) * 128 + 2, page(2, 0) * 128 + 5}));
  EXPECT_EQ(batch.block_tables,
            (std::vector<int32_t>{page(1, 0), page(1, 1), -1, page(2, 0), -1, -1}));
}

TEST_F(BatchBuilderTest, PrefillRowsByExactArrays) {
  add(1, 130, 0, 0);
  add(2, 2, 1, 500);
  const std::vector<PrefillChunk> chunks = {{.id = 1, .begin = 127, .end = 130},
                                            {.id = 2, .begin = 0, .end = 2}};
  const PrefillBatch batch = build_prefill_batch(chunks, sequences_, 2);
  EXPECT_EQ(batch.ids, (std::vector<int32_t>{127, 128, 129, 500, 501}));
  EXPECT_EQ(batch.positions, (std::vector<int32_t>{127, 128, 129, 0, 1}));
  EXPECT_EQ(batch.kv_slots,
            (std::vector<int64_t>{page(1, 0) * 128 + 127, page(1, 1) * 128, page(1, 1) * 128 + 1,
                                  page(2, 0) * 128, page(2, 0) * 128 + 1}));
  EXPECT_EQ(batch.block_tables, (std::vector<int32_t>{page(1, 0), page(1, 1), page(2, 0), -1}));
}

TEST_F(BatchBuilderTest, EndsOfTextAreBannedUntilTheMinimum) {
  SequenceSpec spec = make_spec(9, 10, 50);
  spec.stop_ids = {2, 77};
  spec.num_tokens_min = 12;
  spec.sampling = {.temperature = 0.5f, .top_p = 0.9f, .min_p = 0.1f, .top_k = 7, .seed = 42};
  Sequence sequence(std::move(spec));
  sequence.start_prefill(0, 4);
  const std::vector<DrawRow> rows = {{&sequence, 11}, {&sequence, 12}};
  const SampleBatch batch = build_sample_batch(rows);
  ASSERT_EQ(batch.banned.size(), 2u * kernels::kMaxBannedIds);
  EXPECT_EQ(batch.banned[0], 2);
  EXPECT_EQ(batch.banned[1], 77);
  EXPECT_EQ(batch.banned[2], -1);
  EXPECT_EQ(batch.banned[kernels::kMaxBannedIds], -1);
  EXPECT_EQ(batch.positions, (std::vector<int32_t>{11, 12}));
  EXPECT_EQ(batch.sequence_slots, (std::vector<int32_t>{4, 4}));
  EXPECT_EQ(batch.seeds, (std::vector<uint64_t>{42, 42}));
  EXPECT_EQ(batch.top_k, (std::vector<int32_t>{7, 7}));
  EXPECT_EQ(batch.temperature, (std::vector<float>{0.5f, 0.5f}));
}

TEST_F(BatchBuilderTest, PaddingTouchesNoPageAndDrawsIntoSlotsOfItsOwn) {
  add(1, 5, 0, 0);
  const std::vector<DecodeRow> rows = {{1, 5}};
  DecodeBatch batch = build_decode_batch(rows, sequences_, 2);
  pad(batch, 3, 8);
  EXPECT_EQ(batch.sequence_slots, (std::vector<int32_t>{0, 9, 10}));
  EXPECT_EQ(batch.positions, (std::vector<int32_t>{5, 0, 0}));
  EXPECT_EQ(batch.context_lens, (std::vector<int32_t>{6, 0, 0}));
  EXPECT_EQ(batch.kv_slots, (std::vector<int64_t>{page(1, 0) * 128 + 5, -1, -1}));
  EXPECT_EQ(batch.block_tables, (std::vector<int32_t>{page(1, 0), -1, -1, -1, -1, -1}));
  const std::vector<DrawRow> draws = {{sequences_.at(1).get(), 6}};
  SampleBatch sample = build_sample_batch(draws);
  pad(sample, 2, 8);
  EXPECT_EQ(sample.sequence_slots, (std::vector<int32_t>{0, 9}));
  EXPECT_EQ(sample.temperature.back(), 0.0f);
  EXPECT_EQ(sample.seeds.size(), 2u);
  EXPECT_EQ(sample.banned.size(), 2u * kernels::kMaxBannedIds);
  EXPECT_EQ(sample.banned.back(), -1);
}

TEST_F(BatchBuilderTest, ATokenWithoutAPageIsAProgrammersError) {
  add(1, 5, 0, 0);
  const std::vector<DecodeRow> rows = {{1, 128}};
  EXPECT_DEATH(build_decode_batch(rows, sequences_, 3), "a token without a page");
}

}  // namespace
}  // namespace pbserve::engine
