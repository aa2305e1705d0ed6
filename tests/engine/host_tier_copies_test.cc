// The host tier's copies on both backends: what a page holds comes back whatever its place was used
// for meanwhile, and on a GPU nothing waits that need not.
#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <thread>

#include "tests/engine/pool_pages.h"
#include "tests/support/backends.h"

namespace pbserve::engine {
namespace {

using Bytes = std::vector<std::byte>;

class HostTierCopies : public ::testing::TestWithParam<test::Backend> {
 protected:
  std::unique_ptr<KvCachePool> make_pool(const KvCacheShape& shape, int64_t num_pages,
                                         int64_t num_host_pages) {
    auto pool = KvCachePool::create(stream_, shape,
                                    {.num_pages = num_pages, .num_host_pages = num_host_pages});
    check(pool.ok(), pool.status().ToString());
    return *std::move(pool);
  }

  // K, V and moments of all layers, one after the other.
  template <class Visit>
  static void for_each_part(const KvCachePool& pool, const KvCacheShape& shape, int32_t page,
                            Visit visit) {
    for (int64_t layer = 0; layer < shape.num_layers; ++layer) {
      const models::KvPages pages = pool.layer(layer);
      for (const kernels::Tensor& part : {pages.k, pages.v, pages.k_mean, pages.k_var}) {
        const kernels::Tensor of_page = part.at(page);
        visit(of_page.data, static_cast<size_t>(of_page.numel()) * size_of(shape.dtype));
      }
    }
  }

  // As a step would: in the order of the compute stream.
  void write(const KvCachePool& pool, const KvCacheShape& shape, int32_t page, const Bytes& bytes) {
    size_t at = 0;
    for_each_part(pool, shape, page, [&](void* data, size_t num_bytes) {
      kernels::copy_to_device(data, bytes.data() + at, num_bytes, stream_);
      at += num_bytes;
    });
    EXPECT_EQ(at, static_cast<size_t>(shape.page_bytes()));
  }

  Bytes read(const KvCachePool& pool, const KvCacheShape& shape, int32_t page) {
    Bytes bytes(static_cast<size_t>(shape.page_bytes()));
    size_t at = 0;
    for_each_part(pool, shape, page, [&](void* data, size_t num_bytes) {
      kernels::copy_to_host(bytes.data() + at, data, num_bytes, stream_);
      at += num_bytes;
    });
    stream_.synchronize();
    return bytes;
  }

  Bytes random_bytes(size_t num_bytes) {
    Bytes bytes(num_bytes);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random_());
    return bytes;
  }

  // Takes pages and overwrites them with NaN as soon as that is allowed.
  void poison(KvCachePool& pool, const KvCacheShape& shape, int32_t num_pages, Handover handover) {
    const Bytes nans(static_cast<size_t>(shape.page_bytes()), std::byte{0xff});
    BlockTable table;
    ASSERT_TRUE(pool.allocate(table, num_pages, handover));
    if (handover == Handover::kLater) pool.hold_back_steps(table);
    for (const int32_t page : table.pages()) write(pool, shape, page, nans);
    stream_.synchronize();  // the NaNs are on the stack of this function
  }

  kernels::Stream stream_ = test::stream_of(GetParam());
  std::mt19937 random_{7};
};
INSTANTIATE_TEST_SUITE_P(Backends, HostTierCopies, ::testing::ValuesIn(test::backends()),
                         test::backend_name);

TEST_P(HostTierCopies, RandomPagesComeBackThroughPoisonedOnes) {
  const KvCacheShape shape{
      .num_layers = 5, .num_kv_heads = 3, .head_dim = 24, .dtype = kernels::DType::kBF16};
  constexpr int32_t kNumPages = 40;
  const auto pool = make_pool(shape, kNumPages, 100);
  std::string letters;
  std::vector<Bytes> contents;
  for (int i = 0; i < 36; ++i) {
    letters.push_back(static_cast<char>('0' + i));
    contents.push_back(random_bytes(static_cast<size_t>(shape.page_bytes())));
  }
  {
    BlockTable table;
    ASSERT_TRUE(pool->allocate(table, 36));
    for (int32_t i = 0; i < 36; ++i) write(*pool, shape, table.page(i), contents[i]);
    pool->insert("dense", tokens_of(letters), table, 36);
  }
  for (const Handover handover : {Handover::kNow, Handover::kLater, Handover::kNow}) {
    poison(*pool, shape, kNumPages, handover);
    EXPECT_EQ(pool->num_host_cached(), 36);
    BlockTable table;
    ASSERT_EQ(acquire_all(*pool, "dense", tokens_of(letters), table), 36);
    pool->hold_back_steps(table);
    for (int32_t i = 0; i < 36; ++i) {
      EXPECT_EQ(read(*pool, shape, table.page(i)), contents[i]) << "page " << i;
    }
    pool->check_integrity(std::vector<const BlockTable*>{&table});
  }
}

// One prompt's pages come in where another's go out, both of many batches.
TEST_P(HostTierCopies, PromptsThatSwapPlacesKeepTheirContent) {
  const KvCacheShape shape{
      .num_layers = 4, .num_kv_heads = 2, .head_dim = 32, .dtype = kernels::DType::kBF16};
  const auto pool = make_pool(shape, 64, 80);
  std::string letters[2];
  std::vector<Bytes> contents[2];
  for (int which = 0; which < 2; ++which) {
    for (int i = 0; i < 60; ++i) {
      letters[which].push_back(static_cast<char>('0' + (i + which) % 60));
      contents[which].push_back(random_bytes(static_cast<size_t>(shape.page_bytes())));
    }
    BlockTable table;
    ASSERT_TRUE(pool->allocate(table, 60));
    for (int32_t i = 0; i < 60; ++i) write(*pool, shape, table.page(i), contents[which][i]);
    pool->insert("dense", tokens_of(letters[which]), table, 60);
    stream_.synchronize();
  }
  for (int round = 0; round < 6; ++round) {
    BlockTable table;
    ASSERT_EQ(acquire_all(*pool, "dense", tokens_of(letters[round % 2]), table), 60);
    while (!pool->is_loaded(table)) std::this_thread::yield();
    for (int32_t i = 0; i < 60; ++i) {
      ASSERT_EQ(read(*pool, shape, table.page(i)), contents[round % 2][i]) << i << " in " << round;
    }
  }
}

// While the compute stream is busy for long, pages leave and come beside it.
TEST_P(HostTierCopies, CopiesOverlapWithSteps) {
  if (!stream_.is_cuda()) GTEST_SKIP() << "on the CPU a copy runs at once";
  const KvCacheShape shape{
      .num_layers = 32, .num_kv_heads = 8, .head_dim = 128, .dtype = kernels::DType::kBF16};
  const auto pool = make_pool(shape, 64, 128);
  constexpr size_t kWorkBytes = size_t{4} << 30;
  const auto work = kernels::DeviceBuffer::create(GetParam().device, kWorkBytes);
  ASSERT_TRUE(work.ok()) << work.status();
  {
    BlockTable table;
    ASSERT_TRUE(pool->allocate(table, 32));
    pool->insert("dense", tokens_of(std::string("0123456789abcdefghijklmnopqrstuv")), table, 32);
  }
  stream_.synchronize();
  BlockTable other;
  ASSERT_TRUE(pool->allocate(other, 60, Handover::kLater));
  PrefixMatch match;
  pool->refresh("dense", tokens_of(std::string("0123")), match);
  BlockTable back;
  ASSERT_TRUE(pool->acquire(match, 4, back));
  for (int i = 0; i < 400; ++i) kernels::fill_zero(work->data(), kWorkBytes, stream_);
  kernels::Event steps(stream_);
  steps.record(stream_);
  const auto begin = std::chrono::steady_clock::now();
  while (!pool->is_loaded(other) || !pool->is_loaded(back)) std::this_thread::yield();
  const auto end = std::chrono::steady_clock::now();
  EXPECT_FALSE(steps.is_reached()) << "the copies waited for the steps";
  std::cout << "copies beside steps: "
            << std::chrono::duration<double, std::milli>(end - begin).count() << " ms\n";
}

// Prints the rate of each direction alone and of both together, for pages of 16 MB.
TEST_P(HostTierCopies, FullBandwidth) {
  if (!stream_.is_cuda()) GTEST_SKIP() << "measures a GPU's bus";
  const KvCacheShape shape{
      .num_layers = 32, .num_kv_heads = 8, .head_dim = 128, .dtype = kernels::DType::kBF16};
  constexpr int32_t kPages = 400;
  const auto pool = make_pool(shape, kPages + 40, 2 * kPages + 80);
  const auto prompt = [](int first) {
    std::vector<int32_t> tokens;
    for (int32_t i = 0; i < kPages; ++i) {
      tokens.insert(tokens.end(), kernels::kPageSize, first + i);
    }
    return tokens;
  };
  using Clock = std::chrono::steady_clock;
  const auto report = [&](const char* what, BlockTable& table, Clock::time_point begin) {
    const auto queued = Clock::now();
    while (!pool->is_loaded(table)) std::this_thread::yield();
    const std::chrono::duration<double> all = Clock::now() - begin;
    const std::chrono::duration<double> host = queued - begin;
    const double gbytes = static_cast<double>(kPages * shape.page_bytes()) * 1e-9;
    std::cout << what << ": " << all.count() * 1e3 << " ms, " << gbytes / all.count()
              << " GB/s, of it on the calling thread " << host.count() * 1e3 << " ms\n";
    EXPECT_GT(gbytes / all.count(), 5.0);
  };
  for (const int first : {0, 1000}) {
    BlockTable table;
    const auto begin = Clock::now();
    ASSERT_TRUE(pool->allocate(table, kPages, Handover::kLater));
    if (first > 0) report("to the host", table, begin);
    pool->insert("dense", prompt(first), table, kPages);
  }
  for (const int first : {0, 1000}) {
    BlockTable table;
    const auto begin = Clock::now();
    ASSERT_EQ(acquire_all(*pool, "dense", prompt(first), table), kPages);
    report("to the device, as many to the host", table, begin);
  }
}

}  // namespace
}  // namespace pbserve::engine
