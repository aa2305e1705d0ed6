// Copies beside the compute stream: rows, rows far apart, and who waits for whom.
#include "kernels/core/copy_stream.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <vector>

#include "kernels/core/buffer.h"
#include "tests/support/backends.h"

namespace pbserve::kernels {
namespace {

class CopyStreamTest : public ::testing::TestWithParam<test::Backend> {
 protected:
  DeviceBuffer device_buffer(int64_t num_bytes) const {
    auto buffer = DeviceBuffer::create(GetParam().device, static_cast<size_t>(num_bytes));
    check(buffer.ok(), buffer.status().ToString());
    return *std::move(buffer);
  }
  PinnedBuffer host_buffer(int64_t num_bytes) const {
    auto buffer = PinnedBuffer::create(GetParam().device, static_cast<size_t>(num_bytes));
    check(buffer.ok(), buffer.status().ToString());
    return *std::move(buffer);
  }
  CopyStream copy_stream() const {
    auto stream = CopyStream::create(GetParam().device);
    check(stream.ok(), stream.status().ToString());
    return *std::move(stream);
  }
  static void wait(const CopyMark& mark) {
    while (!mark.is_reached()) {
    }
  }

  // Three rows of 1,000 bytes go to the device, `pitch` apart, and back.
  void round_trip(int64_t pitch) {
    constexpr int64_t kRows = 3;
    constexpr int64_t kRowBytes = 1000;
    const DeviceBuffer device = device_buffer((kRows - 1) * pitch + kRowBytes);
    const PinnedBuffer there = host_buffer(kRows * kRowBytes);
    const PinnedBuffer back = host_buffer(kRows * kRowBytes);
    for (int64_t i = 0; i < kRows * kRowBytes; ++i) {
      there.data()[i] = static_cast<std::byte>(i * 7 + i / 251);
    }
    const CopyStream stream = copy_stream();
    stream.copy_to_device({.to = device.data(),
                           .from = there.data(),
                           .to_pitch = pitch,
                           .from_pitch = kRowBytes,
                           .row_bytes = kRowBytes,
                           .num_rows = kRows});
    stream.copy_to_host({.to = back.data(),
                         .from = device.data(),
                         .to_pitch = kRowBytes,
                         .from_pitch = pitch,
                         .row_bytes = kRowBytes,
                         .num_rows = kRows});
    CopyMark mark(stream);
    mark.record(stream);
    wait(mark);
    EXPECT_EQ(std::memcmp(there.data(), back.data(), kRows * kRowBytes), 0);
    std::byte middle{};
    copy_to_host(&middle, device.data() + pitch + 1, 1, stream_);
    stream_.synchronize();
    EXPECT_EQ(middle, there.data()[kRowBytes + 1]) << "the second row is a pitch further on";
  }

  Stream stream_ = test::stream_of(GetParam());
};
INSTANTIATE_TEST_SUITE_P(Backends, CopyStreamTest, ::testing::ValuesIn(test::backends()),
                         test::backend_name);

TEST_P(CopyStreamTest, RowsMakeARoundTrip) { round_trip(4096); }

// 2 GiB is the largest pitch of CUDA's strided copies; a pool of few layers has larger ones.
TEST_P(CopyStreamTest, RowsMayLieFarApart) { round_trip((int64_t{1} << 31) + 512); }

TEST_P(CopyStreamTest, ACopyWaitsForTheStepsBeforeItAndHoldsBackThoseAfterIt) {
  constexpr int64_t kBytes = 64 << 20;
  const DeviceBuffer device = device_buffer(kBytes);
  const PinnedBuffer ones = host_buffer(kBytes);
  const PinnedBuffer back = host_buffer(kBytes);
  std::memset(ones.data(), 1, kBytes);
  const RowCopy rows{.to = back.data(),
                     .from = device.data(),
                     .to_pitch = kBytes,
                     .from_pitch = kBytes,
                     .row_bytes = kBytes,
                     .num_rows = 1};
  const CopyStream copies = copy_stream();
  for (int i = 0; i < 20; ++i) {
    std::memset(back.data(), 2, kBytes);
    fill_zero(device.data(), kBytes, stream_);
    copy_to_device(device.data(), ones.data(), kBytes, stream_);  // the step before
    copies.wait_for(stream_);
    copies.copy_to_host(rows);
    CopyMark mark(copies);
    mark.record(copies);
    mark.hold_back(stream_);
    fill_zero(device.data(), kBytes, stream_);  // the step after
    stream_.synchronize();
    EXPECT_TRUE(mark.is_reached());
    ASSERT_EQ(std::memcmp(back.data(), ones.data(), kBytes), 0) << "round " << i;
  }
}

TEST_P(CopyStreamTest, OneStreamOfCopiesWaitsForTheOther) {
  constexpr int64_t kBytes = 32 << 20;
  const DeviceBuffer device = device_buffer(kBytes);
  const PinnedBuffer from = host_buffer(kBytes);
  const PinnedBuffer to = host_buffer(kBytes);
  const CopyStream in = copy_stream();
  const CopyStream out = copy_stream();
  for (int i = 1; i <= 20; ++i) {
    std::memset(from.data(), i, kBytes);
    in.copy_to_device({device.data(), from.data(), kBytes, kBytes, kBytes, 1});
    CopyMark arrived(in);
    arrived.record(in);
    out.wait_for(arrived);
    out.copy_to_host({to.data(), device.data(), kBytes, kBytes, kBytes, 1});
    CopyMark left(out);
    left.record(out);
    wait(left);
    ASSERT_EQ(std::memcmp(to.data(), from.data(), kBytes), 0) << "round " << i;
  }
}

}  // namespace
}  // namespace pbserve::kernels
