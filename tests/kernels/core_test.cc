// Storage types, tensors, workspaces, buffers, streams and devices.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <thread>

#include "kernels/core/buffer.h"
#include "kernels/core/device.h"
#include "kernels/core/gpu_presence.h"
#include "kernels/core/stream.h"
#include "kernels/core/workspace.h"
#include "tests/support/temp_dir.h"

namespace pbserve::kernels {
namespace {

TEST(CheckDeathTest, PrintsTheCallersPlaceAndTheValues) {
  EXPECT_DEATH(check(false, "the reason"), "core_test.cc:[0-9]+: check failed: the reason");
  EXPECT_DEATH(check_eq(3, 4, "count"), "core_test.cc:[0-9]+: check failed: count: 3 vs 4");
}

TEST(BF16, EveryValueSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = to_f32(BF16{static_cast<uint16_t>(bits)});
    const BF16 back = from_f32<BF16>(value);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(to_f32(back)));
    } else {
      EXPECT_EQ(back.bits, bits);
    }
  }
}

TEST(BF16, RoundsToNearestAndTiesToEven) {
  const auto bits_of = [](float value) { return from_f32<BF16>(value).bits; };
  EXPECT_EQ(bits_of(1.f), 0x3f80);
  EXPECT_EQ(bits_of(1.f + 0x1p-8f), 0x3f80);                      // tie, down to even
  EXPECT_EQ(bits_of(1.f + 3 * 0x1p-8f), 0x3f82);                  // tie, up to even
  EXPECT_EQ(bits_of(1.f + 0x1p-8f + 0x1p-20f), 0x3f81);           // above the tie
  EXPECT_EQ(bits_of(std::bit_cast<float>(0x7f7fffffu)), 0x7f80);  // rounds to infinity
  EXPECT_TRUE(std::isnan(to_f32(from_f32<BF16>(std::bit_cast<float>(0x7f800001u)))));
}

// A tensor is read as what it can hold; anything else does not compile.
template <class T>
concept Readable = requires(const Tensor tensor) {
  tensor.as<T>();
};

TEST(DTypeOf, IsThereForStorageTypesAlone) {
  static_assert(Readable<float> && Readable<BF16> && Readable<uint8_t> && Readable<int64_t>);
  static_assert(!Storable<double> && !Storable<bool> && !Storable<int16_t>);
  static_assert(!Readable<double> && !Readable<bool> && !Readable<char>);
  EXPECT_EQ(kDTypeOf<uint8_t>, DType::kU8);
  EXPECT_EQ(kDTypeOf<BF16>, DType::kBF16);
  EXPECT_EQ(size_of(kDTypeOf<uint64_t>), sizeof(uint64_t));
}

TEST(F16, KnownValues) {
  EXPECT_EQ(f16_bits_to_f32(0x3c00), 1.f);
  EXPECT_EQ(f16_bits_to_f32(0xc000), -2.f);
  EXPECT_EQ(f16_bits_to_f32(0x7bff), 65504.f);
  EXPECT_EQ(f16_bits_to_f32(0x0400), 0x1p-14f);
  EXPECT_EQ(f16_bits_to_f32(0x0001), 0x1p-24f);
  EXPECT_EQ(f16_bits_to_f32(0x03ff), 1023 * 0x1p-24f);
  EXPECT_TRUE(std::signbit(f16_bits_to_f32(0x8000)));
  EXPECT_EQ(f16_bits_to_f32(0xfc00), -HUGE_VALF);
  EXPECT_TRUE(std::isnan(f16_bits_to_f32(0x7c01)));
}

TEST(F16, PositiveValuesRiseInTheStepsOfTheirExponent) {
  for (uint16_t bits = 0; bits + 1 < 0x7c00; ++bits) {
    const int exponent = std::max(1, bits >> 10);
    const float step = f16_bits_to_f32(static_cast<uint16_t>(bits + 1)) - f16_bits_to_f32(bits);
    EXPECT_EQ(step, std::ldexp(1.f, exponent - 25)) << bits;
  }
}

TEST(Tensor, RowsAndIndicesAreViews) {
  float data[24];
  const Tensor tensor(data, DType::kF32, {2, 3, 4});
  EXPECT_EQ(tensor.numel(), 24);
  EXPECT_EQ(tensor.at(1).as<float>(), data + 12);
  EXPECT_EQ(tensor.at(1).rows(2, 3).as<float>(), data + 20);
  EXPECT_EQ(tensor.reshape({6, 4}).rows(5, 6).as<float>(), data + 20);
  EXPECT_TRUE(tensor.contiguous());
  EXPECT_TRUE(tensor.rows(1, 1).contiguous());
  Tensor strided = tensor.at(0);
  strided.shape[1] = 2;
  EXPECT_FALSE(strided.contiguous());
}

TEST(TensorDeathTest, RefusesMisuse) {
  float data[6];
  const Tensor tensor(data, DType::kF32, {2, 3});
  EXPECT_DEATH(static_cast<void>(tensor.as<BF16>()), "another dtype");
  EXPECT_DEATH(tensor.rows(1, 3), "out of range");
  EXPECT_DEATH(tensor.reshape({4}), "number of elements: 4 vs 6");
}

TEST(Workspace, HandsOutExactlyWhatItMeasured) {
  const auto carve = [](Workspace& workspace) {
    const Tensor a = workspace.take(DType::kF32, {3, 5});
    const Tensor b = workspace.take(DType::kBF16, {7});
    return std::pair(a, b);
  };
  Workspace measuring;
  EXPECT_TRUE(carve(measuring).first.empty());
  auto buffer = DeviceBuffer::create({}, measuring.used_bytes());
  ASSERT_TRUE(buffer.ok());
  Workspace workspace(buffer->data(), buffer->size());
  const auto [a, b] = carve(workspace);
  EXPECT_EQ(a.data, buffer->data());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(b.data) % Workspace::kAlignment, 0u);
  EXPECT_GE(static_cast<std::byte*>(b.data), buffer->data() + 60);
  EXPECT_EQ(workspace.used_bytes(), buffer->size());
  EXPECT_DEATH(workspace.take(DType::kU8, {1}), "smaller than its own measurement");
}

TEST(DeviceBuffer, ComesZeroedAndAligned) {
  auto buffer = DeviceBuffer::create({}, 100'000);
  ASSERT_TRUE(buffer.ok());
  EXPECT_EQ(buffer->size(), 100'000u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % 64, 0u);
  for (size_t i = 0; i < buffer->size(); ++i) ASSERT_EQ(buffer->data()[i], std::byte{0});
}

TEST(DeviceBuffer, MovesItsMemory) {
  DeviceBuffer a = *DeviceBuffer::create({}, 64);
  std::byte* memory = a.data();
  DeviceBuffer b = std::move(a);
  EXPECT_EQ(b.data(), memory);
  EXPECT_EQ(a.data(),
            nullptr);  // NOLINT(bugprone-use-after-move): the state is part of the contract
  DeviceBuffer c;
  c = std::move(b);
  EXPECT_EQ(c.data(), memory);
  EXPECT_EQ(c.size(), 64u);
  EXPECT_EQ(DeviceBuffer::create({}, 0)->data(), nullptr);
}

TEST(DeviceBuffer, NamesTheBytesItCannotGet) {
  const auto buffer = DeviceBuffer::create({}, size_t{1} << 60);
  EXPECT_EQ(buffer.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(std::string(buffer.status().message()).find("1152921504606846976 bytes"),
            std::string::npos);
}

TEST(Stream, TheCpuHasNoPartsAndNoPriorities) {
  EXPECT_EQ(Stream::partition(Device{}, 16).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Stream::create_urgent(Device{}).status().code(), absl::StatusCode::kInvalidArgument);
  const auto stream = Stream::create(Device{}, 1);
  ASSERT_TRUE(stream.ok()) << stream.status();
  EXPECT_EQ(stream->num_sms(), 0);
  Event event(*stream);
  event.record(*stream);
  event.hold(*stream);  // what comes after is after it anyway
  EXPECT_TRUE(event.is_reached());
}

TEST(Stream, CopiesAndFillsAtOnceOnTheCpu) {
  const auto stream = Stream::create({}, 2);
  ASSERT_TRUE(stream.ok());
  EXPECT_FALSE(stream->is_cuda());
  EXPECT_EQ(stream->pool().num_threads(), 2);
  DeviceBuffer device = *DeviceBuffer::create({}, 8);
  PinnedBuffer host = *PinnedBuffer::create({}, 8);
  copy_to_device(device.data(), "abcdefg", 8, *stream);
  copy_to_host(host.data(), device.data(), 8, *stream);
  EXPECT_EQ(std::memcmp(host.data(), "abcdefg", 8), 0);
  fill_zero(device.data(), 8, *stream);
  EXPECT_EQ(device.data()[3], std::byte{0});
  Event event(*stream);
  event.record(*stream);
  event.wait();
  EXPECT_TRUE(event.is_reached());
  Event later(*stream);
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
  later.record(*stream);
  EXPECT_GE(later.ms_since(event), 2.0);
  stream->synchronize();
}

TEST(ChooseDevice, GivesTheCpuWhenAsked) {
  const auto choice = choose_device("cpu");
  ASSERT_TRUE(choice.ok()) << choice.status();
  EXPECT_EQ(choice->device.kind, DeviceKind::kCpu);
}

TEST(ChooseDevice, AutoSaysWhyItTookTheCpu) {
  const auto gpu = choose_device("cuda");
  const auto choice = choose_device("auto");
  ASSERT_TRUE(choice.ok()) << choice.status();
  if (gpu.ok()) {
    EXPECT_EQ(choice->device.kind, DeviceKind::kCuda);
  } else {
    EXPECT_EQ(gpu.status().code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(choice->device.kind, DeviceKind::kCpu);
    EXPECT_EQ(choice->reason, gpu.status().message());
    EXPECT_FALSE(choice->reason.empty());
    EXPECT_EQ(Stream::create({.kind = DeviceKind::kCuda}, 1).status().code(),
              absl::StatusCode::kUnavailable);
  }
}

TEST(GpuPresence, IsSeenOnTheBusWithoutADriver) {
  test::TempDir bus;
  const auto add = [&](const std::string& name, const std::string& vendor,
                       const std::string& device_class) {
    std::filesystem::create_directory(bus.path() + "/" + name);
    bus.write(name + "/vendor", vendor + "\n");
    bus.write(name + "/class", device_class + "\n");
  };
  EXPECT_FALSE(has_nvidia_gpu(bus.path() + "/hidden"));
  EXPECT_FALSE(has_nvidia_gpu(bus.path()));
  add("0000:00:02.0", "0x8086", "0x030000");  // another maker's display
  add("0000:c1:00.1", "0x10de", "0x040300");  // the sound device of a graphics card
  EXPECT_FALSE(has_nvidia_gpu(bus.path()));
  add("0000:c1:00.0", "0x10de", "0x030200");
  EXPECT_TRUE(has_nvidia_gpu(bus.path()));
}

TEST(GpuPresence, AnOldDriverIsToldWhichOneIsNeeded) {
  const std::string old = cuda::unfit_driver(12080, 13000);
  EXPECT_NE(old.find("too old"), std::string::npos) << old;
  EXPECT_NE(old.find("up to 12.8"), std::string::npos) << old;
  EXPECT_NE(old.find("CUDA 13.0, which needs driver 580 or newer"), std::string::npos) << old;
  const std::string none = cuda::unfit_driver(0, 13010);
  EXPECT_NE(none.find("no NVIDIA driver"), std::string::npos) << none;
  EXPECT_NE(none.find("CUDA 13.1, which needs driver 580 or newer"), std::string::npos) << none;
  EXPECT_NE(none.find("--gpus all"), std::string::npos) << none;
  EXPECT_NE(cuda::unfit_driver(13000, 14020).find("that knows CUDA 14.2"), std::string::npos);
}

TEST(ChooseDevice, RefusesAnUnknownWord) {
  const auto choice = choose_device("tpu");
  EXPECT_EQ(choice.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(choice.status().message()).find("\"tpu\""), std::string::npos);
}

TEST(DeviceInfo, CpuHasANameAndMemory) {
  const auto info = device_info({});
  ASSERT_TRUE(info.ok());
  EXPECT_NE(info->name.find(" threads"), std::string::npos);
  EXPECT_GT(info->total_bytes, int64_t{1} << 28);
  EXPECT_GT(info->free_bytes, 0);
  EXPECT_LE(info->free_bytes, info->total_bytes);
}

TEST(InstructionSets, NamesExactlyTheMissingOnes) {
  const std::string cpuinfo =
      "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx avx2 avx512fx fma\n";
  EXPECT_EQ(missing_instruction_sets("avx avx2 fma ", cpuinfo), "");
  EXPECT_EQ(missing_instruction_sets("avx2 avx512f bmi2 ", cpuinfo), "avx512f bmi2");
  EXPECT_EQ(missing_instruction_sets("avx", ""), "avx");
}

}  // namespace
}  // namespace pbserve::kernels
