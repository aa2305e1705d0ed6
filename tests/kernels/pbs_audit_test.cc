// Step 3 of PBS: the share of the attention mass that was taken.
#include <gtest/gtest.h>

#include <numeric>

#include "tests/kernels/pbs_case.h"

namespace pbserve::test {
namespace {

// A share is a quotient of sums of exponentials: on a GPU products of tensor cores, truncated at
// each 16, under a fast exponential.
constexpr double kNear = 2e-4;

std::vector<double> coverage_of_sample(const PbsCase& pbs, int32_t period) {
  const auto order = pbs.kernel_order();
  const auto taken = pbs.kernel_taken();
  std::vector<double> means;
  for (int64_t h = 0; h < pbs.shape.num_q_heads; ++h) {
    double sum = 0;
    int64_t num_rows = 0;
    for (int64_t block = 0; block < pbs.problem().num_query_blocks(); ++block) {
      const int64_t number = pbs.job.begin / kPbsBlock + block;
      if (number % period != period / 3 || pbs.problem().is_dense_tail(block)) continue;
      const int64_t end = std::min<int64_t>((block + 1) * kPbsBlock, pbs.job.num_rows());
      for (int64_t row = std::max(block * kPbsBlock, end - kAuditRows); row < end; ++row) {
        sum += coverage_ref(pbs.problem(), order, taken, h, row);
        ++num_rows;
      }
    }
    means.push_back(num_rows == 0 ? 0 : sum / static_cast<double>(num_rows));
  }
  return means;
}

void expect_coverage(PbsCase& pbs, int32_t period) {
  pbs.order();
  pbs.select();
  const auto measured = pbs.audit(period);
  const auto expected = coverage_of_sample(pbs, period);
  for (size_t h = 0; h < expected.size(); ++h) EXPECT_NEAR(measured[h], expected[h], kNear) << h;
}

constexpr AttentionShape kShapes[] = {
    {1, 1, 64, DType::kF32},   {6, 2, 64, DType::kBF16}, {7, 1, 128, DType::kBF16},
    {8, 1, 128, DType::kBF16}, {2, 2, 64, DType::kBF16},
};

class PbsAuditOfShape : public ::testing::TestWithParam<AttentionTestCase> {
 protected:
  const AttentionShape& shape() const { return GetParam().shape; }
  const Stream stream_ = stream_of(GetParam().backend);
};

INSTANTIATE_TEST_SUITE_P(Shapes, PbsAuditOfShape, ::testing::ValuesIn(attention_cases(kShapes)),
                         attention_case_name);

TEST_P(PbsAuditOfShape, MatchesTheShareComputedInDouble) {
  for (const PbsJob& job : {early_job(1024, 3072), job_of(1024, 2505)}) {
    PbsCase pbs(stream_, shape(), job, {.threshold = 0.4f});
    expect_coverage(pbs, 3);
  }
  PbsCase odd(stream_, shape(), job_of(0, 1060), {.threshold = 0.3f, .dense_tail = 0});
  expect_coverage(odd, 1);  // every block, a last one of 36 rows too
}

TEST_P(PbsAuditOfShape, ThresholdOfOneCoversAll) {
  PbsCase pbs(stream_, shape(), early_job(1024, 2048), {.threshold = 1.f});
  pbs.order();
  pbs.select();
  for (const double coverage : pbs.audit(2)) EXPECT_EQ(coverage, 1.0);
}

class PbsAudit : public ::testing::TestWithParam<Backend> {
 protected:
  const Stream stream_ = stream_of(GetParam());
};

INSTANTIATE_TEST_SUITE_P(Backends, PbsAudit, ::testing::ValuesIn(backends()), backend_name);

// Less was taken, less is covered; and a sample is no function of the job that it ran in.
TEST_P(PbsAudit, FewerBlocksCoverLess) {
  constexpr AttentionShape kDemo{6, 2, 64, DType::kBF16};
  double last = 1.1;
  for (const float threshold : {0.95f, 0.6f, 0.2f}) {
    PbsCase pbs(stream_, kDemo, early_job(2048, 4096), {.threshold = threshold});
    pbs.order();
    pbs.select();
    const auto coverage = pbs.audit(4);
    const double mean = std::accumulate(coverage.begin(), coverage.end(), 0.0) / 6;
    EXPECT_LT(mean, last);
    last = mean;
  }
}

TEST_P(PbsAudit, TheDenseTailIsNoSample) {
  EXPECT_EQ(num_audited_rows(job_of(0, 1024), 0, 8, 2, 1), 6 * kAuditRows);
  EXPECT_EQ(num_audited_rows(job_of(0, 1024), 0, 8, 8, 1), 0);
  EXPECT_EQ(num_audited_rows(early_job(0, 8192), 0, 64, 2, 64), kAuditRows);
  EXPECT_EQ(num_audited_rows(job_of(0, 1030), 0, 9, 0, 1), 8 * kAuditRows + 6);
}

}  // namespace
}  // namespace pbserve::test
