// Limits of made-up control groups: what a container may use, and what of it is free.
#include "kernels/core/cgroup.h"

#include <gtest/gtest.h>

#include "tests/support/temp_dir.h"

namespace pbserve::kernels {
namespace {

class CgroupTest : public ::testing::Test {
 protected:
  void write(const std::string& file, const std::string& text) {
    const std::string folder = file.substr(0, file.rfind('/') + 1);
    std::filesystem::create_directories(dir_.path() + "/" + folder);
    dir_.write(file, text);
  }
  void write_memory(const std::string& folder, const std::string& limit, int64_t used,
                    int64_t cache) {
    write(folder + "memory.max", limit + "\n");
    write(folder + "memory.current", std::to_string(used) + "\n");
    write(folder + "memory.stat",
          "anon 5\nfile 7\ninactive_file " + std::to_string(cache) + "\nactive_file 3\n");
  }
  Cgroup cgroup(const std::string& own = "0::/\n") const {
    return {.root = dir_.path(), .own = own};
  }

  test::TempDir dir_;
};

TEST_F(CgroupTest, NoFilesAreNoLimit) {
  EXPECT_FALSE(cgroup_memory(cgroup()).has_value());
  EXPECT_FALSE(cgroup_cpus(cgroup()).has_value());
  EXPECT_EQ(num_usable_cpus(cgroup(), 8), 8);
}

TEST_F(CgroupTest, MaxIsNoLimit) {
  write_memory("", "max", 1000, 0);
  write("cpu.max", "max 100000\n");
  EXPECT_FALSE(cgroup_memory(cgroup()).has_value());
  EXPECT_FALSE(cgroup_cpus(cgroup()).has_value());
}

// A loaded checkpoint fills the page cache: it must not shrink what the K/V cache may take.
TEST_F(CgroupTest, PageCacheCountsAsFree) {
  write_memory("", "1000", 900, 700);
  const auto memory = cgroup_memory(cgroup());
  ASSERT_TRUE(memory.has_value());
  EXPECT_EQ(memory->limit_bytes, 1000);
  EXPECT_EQ(memory->free_bytes, 800);
}

TEST_F(CgroupTest, UseBeyondTheLimitLeavesNothing) {
  write_memory("", "1000", 1200, 100);
  EXPECT_EQ(cgroup_memory(cgroup())->free_bytes, 0);
}

TEST_F(CgroupTest, TheTightestLevelHolds) {
  write_memory("system.slice/pbserve.service/", "max", 600, 0);
  write_memory("system.slice/", "2000", 1900, 0);
  write("system.slice/pbserve.service/cpu.max", "400000 100000\n");
  write("system.slice/cpu.max", "250000 100000\n");
  const Cgroup own = cgroup("0::/system.slice/pbserve.service\n");
  EXPECT_EQ(cgroup_memory(own)->limit_bytes, 2000);
  EXPECT_EQ(cgroup_memory(own)->free_bytes, 100);
  EXPECT_EQ(cgroup_cpus(own), 2.5);
  EXPECT_FALSE(cgroup_memory(cgroup("0::/user.slice\n")).has_value());
}

TEST_F(CgroupTest, VersionOneHasATreePerResource) {
  write("memory/memory.limit_in_bytes", "1000\n");
  write("memory/memory.usage_in_bytes", "900\n");
  write("memory/memory.stat", "cache 800\ninactive_file 1\ntotal_inactive_file 700\n");
  write("cpu/cpu.cfs_quota_us", "150000\n");
  write("cpu/cpu.cfs_period_us", "100000\n");
  // Inside a container the paths may be the host's.
  const Cgroup own = cgroup("5:memory:/docker/1234\n4:cpu,cpuacct:/docker/1234\n");
  EXPECT_EQ(cgroup_memory(own)->limit_bytes, 1000);
  EXPECT_EQ(cgroup_memory(own)->free_bytes, 800);
  EXPECT_EQ(cgroup_cpus(own), 1.5);
}

TEST_F(CgroupTest, VersionOnesLargestNumberIsNoLimit) {
  write("memory/memory.limit_in_bytes", "9223372036854771712\n");
  write("memory/memory.usage_in_bytes", "900\n");
  write("cpu/cpu.cfs_quota_us", "-1\n");
  write("cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_FALSE(cgroup_memory(cgroup()).has_value());
  EXPECT_FALSE(cgroup_cpus(cgroup()).has_value());
}

TEST_F(CgroupTest, TheQuotaBoundsTheThreads) {
  write("cpu.max", "250000 100000\n");
  EXPECT_EQ(num_usable_cpus(cgroup(), 8), 2);
  EXPECT_EQ(num_usable_cpus(cgroup(), 1), 1);
  write("cpu.max", "50000 100000\n");
  EXPECT_EQ(num_usable_cpus(cgroup(), 8), 1);
  write("cpu.max", "1600000 100000\n");
  EXPECT_EQ(num_usable_cpus(cgroup(), 8), 8);
}

TEST_F(CgroupTest, BrokenFilesAreNoLimit) {
  write("memory.max", "");
  write("memory.current", "x");
  write("cpu.max", "100000");
  EXPECT_FALSE(cgroup_memory(cgroup("no colons\n::\n")).has_value());
  EXPECT_FALSE(cgroup_cpus(cgroup()).has_value());
}

}  // namespace
}  // namespace pbserve::kernels
