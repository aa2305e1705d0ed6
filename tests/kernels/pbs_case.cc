#include "tests/kernels/pbs_case.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <numeric>
#include <tuple>

#include "kernels/core/workspace.h"
#include "kernels/ops/attention.h"

namespace pbserve::test {
namespace {

// Made once per process: drawing numbers would take most of the tests' time.
const Sequence& seeded_sequence(const AttentionShape& shape, int64_t len, unsigned seed) {
  static std::map<std::tuple<std::string, unsigned, int64_t>, Sequence> sequences;
  const int64_t enough = kernels::align_up<int64_t>(len, 2048);
  const auto [entry, is_missing] = sequences.try_emplace({shape.name(), seed, enough});
  if (is_missing) {
    std::mt19937 rng(seed);
    entry->second = planted_sequence(shape, enough, rng);
  }
  return entry->second;
}

Sequence first_tokens(const Sequence& sequence, int64_t len) {
  return {.q = rows_of(sequence.q, 0, len),
          .k = rows_of(sequence.k, 0, len),
          .v = rows_of(sequence.v, 0, len)};
}

// Natural pages of the job's rows, and one more that no row has; NaN past the rows.
HostTensor own_pages(const reference::PbsProblem& problem, const reference::Heads& from,
                     DType dtype) {
  HostTensor own =
      poisoned(dtype, {problem.job.num_blocks() + 1, from.num_heads, kPageSize, from.head_dim});
  for (int64_t t = problem.job.begin; t < problem.job.end; ++t) {
    const int64_t row = t - problem.job.begin;
    for (int64_t h = 0; h < from.num_heads; ++h) {
      const int64_t slot = (row / kPageSize * from.num_heads + h) * kPageSize + row % kPageSize;
      for (int64_t d = 0; d < from.head_dim; ++d) {
        own.set(slot * from.head_dim + d, from.at(t, h)[d]);
      }
    }
  }
  return own;
}

int64_t scratch_bytes(const AttentionShape& shape, const PbsJob& job, kernels::Device device) {
  kernels::Workspace measure;
  return take_pbs_plan({.num_q_heads = shape.num_q_heads,
                        .num_kv_heads = shape.num_kv_heads,
                        .head_dim = shape.head_dim,
                        .context_len_max = job.end,
                        .job_rows_max = job.num_rows(),
                        .dtype = shape.dtype},
                       device, measure)
      .scratch.numel();
}

HostTensor ones(std::initializer_list<int64_t> dims, DType dtype) {
  HostTensor tensor(dtype, dims);
  std::memset(tensor.view().data, 0xFF, tensor.num_bytes());
  return tensor;
}

}  // namespace

PbsJob job_of(int32_t begin, int32_t end, int32_t span_len) {
  return {.begin = begin, .end = end, .span_len = span_len, .prompt_len = end};
}

PbsJob early_job(int32_t begin, int32_t end, int32_t span_len) {
  return {.begin = begin, .end = end, .span_len = span_len, .prompt_len = end + 100'000};
}

PbsParams top_p(PbsScorer scorer, float threshold, PbsParams others) {
  others.scorer = scorer;
  others.selector = PbsSelector::kTopP;
  others.threshold = threshold;
  return others;
}

DType widest_dtype(const Backend& backend) {
  return backend.device.kind == kernels::DeviceKind::kCuda ? DType::kBF16 : DType::kF32;
}

class PbsCase::OnDevice {
 public:
  explicit OnDevice(const PbsCase& pbs)
      : k_pages(pbs.k_pages_, pbs.stream_),
        v_pages(pbs.v_pages_, pbs.stream_),
        k_mean(pbs.k_mean_, pbs.stream_),
        k_var(pbs.k_var_, pbs.stream_),
        own_k(pbs.own_k_, pbs.stream_),
        own_v(pbs.own_v_, pbs.stream_),
        mask(pbs.mask_, pbs.stream_),
        q(pbs.q_, pbs.stream_),
        out(pbs.out_, pbs.stream_),
        table(as_tensor(pbs.cache_.block_table(0)), pbs.stream_),
        scratch(ones({std::max<int64_t>(pbs.scratch_bytes_, 1)}, DType::kU8), pbs.stream_),
        case_(pbs) {}

  kernels::PbsInput input() const {
    return {.plan = {.own = {.k = own_k.view(), .v = own_v.view(), .k_mean = {}, .k_var = {}},
                     .mask = mask.view(),
                     .scratch = scratch.view().rows(0, case_.scratch_bytes_)},
            .pages = {.k = k_pages.view(),
                      .v = v_pages.view(),
                      .k_mean = k_mean.view(),
                      .k_var = k_var.view()},
            .block_table = table.view(),
            .q = q.view(),
            .job = case_.job,
            .params = case_.problem_.params,
            .scale = case_.shape.scale()};
  }

  DeviceTensor k_pages, v_pages, k_mean, k_var, own_k, own_v, mask, q, out, table, scratch;

 private:
  static HostTensor as_tensor(const Tensor& table) {
    const auto* entries = table.as<int32_t>();
    return tensor_of(std::vector<int32_t>(entries, entries + table.numel()));
  }

  const PbsCase& case_;
};

namespace {

void copy(const HostTensor& from, HostTensor& to) {
  std::memcpy(to.view().data, from.view().data, from.num_bytes());
}

}  // namespace

PbsCase::PbsCase(const Stream& stream, const AttentionShape& attention_shape, PbsJob query_job,
                 const PbsParams& params, unsigned seed)
    : PbsCase(stream, attention_shape, query_job, params,
              seeded_sequence(attention_shape, query_job.end, seed)) {}

PbsCase::PbsCase(const Stream& stream, const AttentionShape& attention_shape, PbsJob query_job,
                 const PbsParams& params, const Sequence& sequence)
    : shape(attention_shape),
      job(query_job),
      stream_(stream),
      problem_{.q = rows_of(sequence.q, job.begin, job.end),
               .k = rows_of(sequence.k, 0, job.end),
               .v = rows_of(sequence.v, 0, job.end),
               .job = job,
               .params = params,
               .scale = double(shape.scale()),
               .earlier = {}},
      cache_(shape, std::vector{first_tokens(sequence, job.end)}),
      k_pages_(poisoned(shape.dtype,
                        {cache_.k_pages().dim(0), shape.num_kv_heads, kPageSize, shape.head_dim})),
      v_pages_(k_pages_),
      k_mean_(poisoned(shape.dtype, {k_pages_.view().dim(0), shape.num_kv_heads, shape.head_dim})),
      k_var_(k_mean_),
      own_k_(own_pages(problem_, problem_.k, shape.dtype)),
      own_v_(own_pages(problem_, problem_.v, shape.dtype)),
      mask_(ones({shape.num_q_heads, job.num_blocks() + 1,
                  kernels::ceil_div(kernels::ceil_div<int64_t>(job.end, kPbsBlock), int64_t{32})},
                 DType::kU32)),
      q_(to_tensor(problem_.q, shape.dtype)),
      out_(poisoned(shape.dtype, {job.num_rows(), shape.num_q_heads, shape.head_dim})),
      scratch_bytes_(scratch_bytes(shape, job, stream.device())) {
  shuffle_earlier();
}

void PbsCase::shuffle_earlier() {
  std::mt19937 rng(77);
  const int64_t segment = problem_.params.segment;
  problem_.earlier.resize(shape.num_kv_heads);
  for (int64_t h = 0; h < shape.num_kv_heads; ++h) {
    auto& places = problem_.earlier[h];
    places.resize(job.begin);
    std::iota(places.begin(), places.end(), 0);
    for (auto at = places.begin(); at != places.end(); at += segment) {
      std::shuffle(at, at + segment, rng);
    }
    for (int64_t place = 0; place < job.begin; ++place) write_page_row(places[place], place, h);
    for (int64_t j = 0; j < job.begin / kPbsBlock; ++j) {
      const auto moments = moments_ref(problem_, problem_.earlier, h, j, shape.dtype);
      for (int64_t d = 0; d < shape.head_dim; ++d) {
        k_mean_.set(moments_idx(j, h) + d, moments.mean[d]);
        k_var_.set(moments_idx(j, h) + d, moments.var[d]);
      }
    }
  }
}

void PbsCase::write_page_row(int64_t position, int64_t place, int64_t kv_head) {
  const int64_t slot =
      (page(place / kPageSize) * shape.num_kv_heads + kv_head) * kPageSize + place % kPageSize;
  for (int64_t d = 0; d < shape.head_dim; ++d) {
    k_pages_.set(slot * shape.head_dim + d, problem_.k.at(position, kv_head)[d]);
    v_pages_.set(slot * shape.head_dim + d, problem_.v.at(position, kv_head)[d]);
  }
}

int64_t PbsCase::moments_idx(int64_t block, int64_t kv_head) const {
  return (page(block) * shape.num_kv_heads + kv_head) * shape.head_dim;
}

void PbsCase::limit_scratch(int64_t num_bytes) {
  scratch_bytes_ = std::min(num_bytes, scratch_bytes_);
}

void PbsCase::poison_own(int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t h = 0; h < shape.num_kv_heads; ++h) {
      const int64_t slot = (row / kPageSize * shape.num_kv_heads + h) * kPageSize + row % kPageSize;
      for (int64_t d = 0; d < shape.head_dim; ++d) {
        own_k_.set(slot * shape.head_dim + d, std::numeric_limits<double>::quiet_NaN());
        own_v_.set(slot * shape.head_dim + d, std::numeric_limits<double>::quiet_NaN());
      }
    }
  }
}

void PbsCase::order() {
  const OnDevice device(*this);
  pbs_order({device.input()}, stream_);
  copy(device.k_pages.read(), k_pages_);
  copy(device.v_pages.read(), v_pages_);
  copy(device.k_mean.read(), k_mean_);
  copy(device.k_var.read(), k_var_);
}

int64_t PbsCase::select(int64_t block_begin, int64_t block_end) {
  constexpr int64_t kBefore = 1000;  // the operation adds
  const OnDevice device(*this);
  const DeviceTensor num_selected(tensor_of<int64_t>({kBefore}), stream_);
  pbs_select({.input = device.input(),
              .block_begin = static_cast<int32_t>(block_begin),
              .block_end = static_cast<int32_t>(block_end),
              .num_selected = num_selected.view()},
             stream_);
  copy(device.mask.read(), mask_);
  return num_selected.read().view().as<int64_t>()[0] - kBefore;
}

std::vector<double> PbsCase::audit(int32_t period) {
  const OnDevice device(*this);
  constexpr int64_t kBefore = int64_t{5} << 32;
  const DeviceTensor coverage(
      tensor_of(std::vector<int64_t>(static_cast<size_t>(shape.num_q_heads), kBefore)), stream_);
  const auto num_blocks = static_cast<int32_t>(problem_.num_query_blocks());
  pbs_audit({.input = device.input(),
             .block_begin = 0,
             .block_end = num_blocks,
             .period = period,
             .coverage = coverage.view()},
            stream_);
  const int64_t num_rows = num_audited_rows(job, 0, num_blocks, problem_.params.dense_tail, period);
  const HostTensor sums = coverage.read();
  std::vector<double> means;
  for (int64_t h = 0; h < shape.num_q_heads; ++h) {
    const auto sum = static_cast<double>(sums.view().as<int64_t>()[h] - kBefore) * 0x1p-32;
    means.push_back(num_rows == 0 ? sum : sum / static_cast<double>(num_rows));
  }
  return means;
}

void PbsCase::prefill(int64_t block_begin, int64_t block_end) {
  const OnDevice device(*this);
  pbs_prefill({.input = device.input(),
               .block_begin = static_cast<int32_t>(block_begin),
               .block_end = static_cast<int32_t>(block_end),
               .out = device.out.view()},
              stream_);
  copy(device.out.read(), out_);
}

HostTensor PbsCase::dense() const {
  const kernels::PrefillSegment rows{
      .row_begin = 0, .num_rows = job.num_rows(), .position = job.begin, .sequence = 0};
  return run_prefill(shape, DeviceCache(cache_, stream_), q_, {&rows, 1});
}

HostTensor PbsCase::decode_last_row() const {
  const OnDevice device(*this);
  const HostTensor q =
      to_tensor(rows_of(problem_.q, problem_.q.num_tokens - 1, problem_.q.num_tokens), shape.dtype);
  const DeviceTensor query(q, stream_);
  const DeviceTensor out(poisoned(shape.dtype, {1, shape.num_q_heads, shape.head_dim}), stream_);
  const DeviceTensor lens(tensor_of(std::vector<int32_t>{job.end}), stream_);
  const int64_t scratch_bytes = decode_scratch_bytes(
      stream_.device(),
      {.num_rows_max = 1, .num_q_heads = shape.num_q_heads, .head_dim = shape.head_dim});
  const DeviceTensor scratch(ones({std::max<int64_t>(scratch_bytes, 1)}, DType::kU8), stream_);
  const kernels::PbsInput in = device.input();
  decode_attention({.out = out.view(),
                    .q = query.view(),
                    .k_pages = in.pages.k,
                    .v_pages = in.pages.v,
                    .block_tables = in.block_table.reshape({1, in.block_table.numel()}),
                    .context_lens = lens.view(),
                    .scratch = scratch.view().rows(0, scratch_bytes),
                    .scale = shape.scale()},
                   stream_);
  return out.read();
}

double PbsCase::arithmetic_error() const {
  return prefill_error({.name = {}, .device = stream_.device()});
}

// Values are drawn anew for every position, so a row of V tells which one it belongs to.
reference::Order PbsCase::kernel_order() const {
  reference::Order order = problem_.earlier;
  const int64_t segment = problem_.params.segment;
  const auto row_of = [&](int64_t place, int64_t h) {
    const int64_t slot =
        (page(place / kPageSize) * shape.num_kv_heads + h) * kPageSize + place % kPageSize;
    std::vector<double> row;
    for (int64_t d = 0; d < shape.head_dim; ++d) {
      row.push_back(value_at(v_pages_.view(), slot * shape.head_dim + d));
    }
    return row;
  };
  for (int64_t h = 0; h < shape.num_kv_heads; ++h) {
    std::map<std::vector<double>, int64_t> position_of;
    for (int64_t t = job.begin; t < job.end; ++t) {
      const auto row = problem_.v.at(t, h);
      position_of[{row.begin(), row.end()}] = t;
    }
    for (int64_t i = 0; i < problem_.num_ordered(); ++i) {
      const int64_t place = job.begin + i;
      const auto found = position_of.find(row_of(place, h));
      const bool is_own = found != position_of.end() && found->second / segment == place / segment;
      order[h].push_back(is_own ? found->second : -1);
    }
  }
  return order;
}

reference::Taken PbsCase::kernel_taken() const {
  reference::Taken taken(shape.num_q_heads);
  for (int64_t h = 0; h < shape.num_q_heads; ++h) {
    for (int64_t block = 0; block < problem_.num_query_blocks(); ++block) {
      const Tensor row = mask_.view().at(h).at(block);
      std::vector<bool> bits;
      for (int64_t j = 0; j < problem_.num_candidates(block); ++j) {
        bits.push_back(row.as<uint32_t>()[j / 32] >> (j % 32) & 1u);
      }
      taken[h].push_back(bits);
    }
  }
  return taken;
}

reference::BlockMoments PbsCase::kernel_moments() const {
  reference::BlockMoments moments(shape.num_kv_heads);
  for (int64_t h = 0; h < shape.num_kv_heads; ++h) {
    for (int64_t j = 0; j < problem_.num_complete_blocks(); ++j) {
      reference::Moments& of_block = moments[h].emplace_back();
      for (int64_t d = 0; d < shape.head_dim; ++d) {
        of_block.mean.push_back(value_at(k_mean_.view(), moments_idx(j, h) + d));
        of_block.var.push_back(value_at(k_var_.view(), moments_idx(j, h) + d));
      }
    }
  }
  return moments;
}

::testing::AssertionResult output_matches(const PbsCase& pbs, int64_t row_step) {
  const auto order = pbs.kernel_order();
  const auto taken = pbs.kernel_taken();
  const int64_t num_rows = pbs.job.num_rows();
  std::vector<int64_t> rows{num_rows - 1};
  for (int64_t row = 0; row < num_rows; row += row_step) rows.push_back(row);
  for (const int64_t row : rows) {
    for (int64_t h = 0; h < pbs.shape.num_q_heads; ++h) {
      const auto expected = reference::pbs_row_ref(pbs.problem(), order, taken, h, row);
      const auto result = close_to(expected, pbs.out(), row, h, pbs.arithmetic_error());
      if (!result) return result;
    }
  }
  return ::testing::AssertionSuccess();
}

}  // namespace pbserve::test
