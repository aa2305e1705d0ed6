// Row-major y [T, N] = x [T, K] W [N, K]^T is, column by column, y^T = W x^T: the weight is the
// first operand, transposed, and the rows of x are the columns of the second.
#include "kernels/cuda/matmul.h"

#include <algorithm>
#include <bit>
#include <compare>
#include <map>
#include <vector>

#include "kernels/cuda/cublas_lt.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/round_bias.h"

namespace pbserve::kernels::cuda {
namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;  // what NVIDIA advises for Hopper
constexpr size_t kBiasBytes = size_t{1} << 20;        // behind it: the bias of the product at hand
constexpr int kCandidates = 32;

// With determinism: the number of rows the algorithm is chosen for, and those it must also accept.
constexpr int64_t kReferenceRows = 2048;
constexpr int64_t kAcceptedRows[] = {1, 7, 64, kReferenceRows, 131072};

cudaDataType_t cuda_type(DType dtype) { return dtype == DType::kBF16 ? CUDA_R_16BF : CUDA_R_32F; }

// What an algorithm is chosen by.
struct Problem {
  int64_t num_rows;  // rounded up to a power of two; kReferenceRows with determinism
  int64_t num_out;
  int64_t num_in;
  DType x_type;
  DType y_type;
  bool has_bias;
  uint32_t w_alignment;  // bytes
  uint32_t x_alignment;
  uint32_t y_alignment;

  auto operator<=>(const Problem&) const = default;
};

struct Plan {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t w = nullptr;  // column-major [K, N]
  cublasLtMatrixLayout_t x = nullptr;  // column-major [K, T]
  cublasLtMatrixLayout_t y = nullptr;  // column-major [N, T]
  cublasLtMatmulAlgo_t algorithm = {};
};

// The power of two that both the address and the length of a row are multiples of, up to 16: what
// every row's address is a multiple of, whichever row a view starts with.
uint32_t alignment_of(const Tensor& tensor, int64_t row_numel) {
  const auto row_bytes = static_cast<uintptr_t>(row_numel) * size_of(tensor.dtype);
  const uintptr_t bits = reinterpret_cast<uintptr_t>(tensor.data) | row_bytes | 16;
  return 1u << std::countr_zero(bits);
}

std::string name_of(const LinearArgs& args) {
  std::ostringstream text;
  text << "linear: [" << args.x.dim(0) << ", " << args.weight.num_in << "] x ["
       << args.weight.num_out << ", " << args.weight.num_in << "]^T, "
       << kernels::name_of(args.x.dtype) << " to " << kernels::name_of(args.y.dtype);
  return text.str();
}

}  // namespace

struct Matmul::Impl {
  CublasLt lt = {};
  cublasLtHandle_t handle = nullptr;
  void* workspace = nullptr;
  bool is_deterministic = false;
  int32_t num_sms = 0;  // that products are made for; 0 = all
  std::map<Problem, Plan> plans;

  Impl() = default;
  ~Impl();
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  void check_lt(cublasStatus_t status, const LinearArgs& args) const {
    if (status != CUBLAS_STATUS_SUCCESS) [[unlikely]]
      die(name_of(args) + ": " + lt.status_string(status));
  }
  Problem problem_of(const LinearArgs& args) const;
  Plan make_plan(const Problem& problem, const LinearArgs& args) const;
  std::vector<cublasLtMatmulHeuristicResult_t> candidates(const Problem& problem, const Plan& plan,
                                                          const LinearArgs& args) const;
  bool is_the_same_for_all_rows(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm,
                                const LinearArgs& args) const;
  void set_bias(const Plan& plan, const LinearArgs& args) const;
  void* bias_slot() const { return static_cast<std::byte*>(workspace) + kWorkspaceBytes; }
  void set_rows(const Plan& plan, int64_t num_rows, const LinearArgs& args) const;
  const Plan& plan_of(const LinearArgs& args);
};

Matmul::Impl::~Impl() {
  for (const auto& [problem, plan] : plans) {
    lt.operation_destroy(plan.operation);
    for (const auto layout : {plan.w, plan.x, plan.y}) lt.layout_destroy(layout);
  }
  if (handle != nullptr) lt.destroy(handle);
  if (workspace != nullptr) cudaFree(workspace);
}

// The rounding of rows is promised in ops/linear.h: who warms up counts on it.
Problem Matmul::Impl::problem_of(const LinearArgs& args) const {
  const LinearWeight& weight = args.weight;
  const auto num_rows = static_cast<uint64_t>(args.x.dim(0));
  return {
      .num_rows = is_deterministic ? kReferenceRows : static_cast<int64_t>(std::bit_ceil(num_rows)),
      .num_out = weight.num_out,
      .num_in = weight.num_in,
      .x_type = args.x.dtype,
      .y_type = args.y.dtype,
      .has_bias = !args.bias.empty(),
      .w_alignment = alignment_of(weight.packed, weight.num_in),
      .x_alignment = alignment_of(args.x, weight.num_in),
      .y_alignment = alignment_of(args.y, weight.num_out)};
}

// The bias is added in float32, before the one rounding to y's type. (Put into y first, with beta
// = 1, it is added after a rounding: seen on an H200 with CUDA 13.0.)
void Matmul::Impl::set_bias(const Plan& plan, const LinearArgs& args) const {
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const auto& value) {
    check_lt(lt.operation_set(plan.operation, attribute, &value, sizeof(value)), args);
  };
  set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
  set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, cuda_type(args.y.dtype));
  set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias_slot());
}

void Matmul::Impl::set_rows(const Plan& plan, int64_t num_rows, const LinearArgs& args) const {
  const auto cols = static_cast<uint64_t>(num_rows);
  for (const auto layout : {plan.x, plan.y}) {
    check_lt(lt.layout_set(layout, CUBLASLT_MATRIX_LAYOUT_COLS, &cols, sizeof(cols)), args);
  }
}

// Algorithms by expected speed. Partial sums of a split product are added in float32, never in y's
// type; with determinism nothing is split.
std::vector<cublasLtMatmulHeuristicResult_t> Matmul::Impl::candidates(
    const Problem& problem, const Plan& plan, const LinearArgs& args) const {
  cublasLtMatmulPreference_t preference = nullptr;
  check_lt(lt.preference_create(&preference), args);
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    check_lt(lt.preference_set(preference, attribute, &value, sizeof(value)), args);
  };
  const uint32_t reductions =
      is_deterministic ? CUBLASLT_REDUCTION_SCHEME_NONE : CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions);
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kWorkspaceBytes});
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, problem.w_alignment);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, problem.x_alignment);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, problem.y_alignment);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, problem.y_alignment);
  std::vector<cublasLtMatmulHeuristicResult_t> found(kCandidates);
  int num_found = 0;
  const int num_wanted = is_deterministic ? kCandidates : 1;
  const cublasStatus_t status =
      lt.get_heuristic(handle, plan.operation, plan.w, plan.x, plan.y, plan.y, preference,
                       num_wanted, found.data(), &num_found);
  lt.preference_destroy(preference);
  check_lt(status, args);
  found.resize(static_cast<size_t>(num_found));
  std::erase_if(found, [](const auto& result) { return result.state != CUBLAS_STATUS_SUCCESS; });
  return found;
}

// Whether an algorithm adds each element's products in one sum, and accepts any number of rows.
bool Matmul::Impl::is_the_same_for_all_rows(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm,
                                            const LinearArgs& args) const {
  int32_t num_splits = 0;
  check_lt(lt.algo_get(&algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &num_splits, sizeof(num_splits),
                       nullptr),
           args);
  if (num_splits > 1) return false;
  bool is_accepted = true;
  for (const int64_t num_rows : kAcceptedRows) {
    set_rows(plan, num_rows, args);
    cublasLtMatmulHeuristicResult_t result;
    is_accepted &= lt.algo_check(handle, plan.operation, plan.w, plan.x, plan.y, plan.y, &algorithm,
                                 &result) == CUBLAS_STATUS_SUCCESS &&
                   result.workspaceSize <= kWorkspaceBytes;
  }
  set_rows(plan, kReferenceRows, args);
  return is_accepted;
}

Plan Matmul::Impl::make_plan(const Problem& problem, const LinearArgs& args) const {
  const auto num_rows = static_cast<uint64_t>(problem.num_rows);
  const auto num_out = static_cast<uint64_t>(problem.num_out);
  const auto num_in = static_cast<uint64_t>(problem.num_in);
  const cudaDataType_t type = cuda_type(problem.x_type);
  const cublasOperation_t transposed = CUBLAS_OP_T;
  Plan plan;
  // CUBLAS_COMPUTE_32F: float32 sums, and no TF32 for float32 operands.
  check_lt(lt.operation_create(&plan.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), args);
  check_lt(lt.operation_set(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                            sizeof(transposed)),
           args);
  if (num_sms > 0) {
    check_lt(lt.operation_set(plan.operation, CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, &num_sms,
                              sizeof(num_sms)),
             args);
  }
  check_lt(lt.layout_create(&plan.w, type, num_in, num_out, problem.num_in), args);
  check_lt(lt.layout_create(&plan.x, type, num_in, num_rows, problem.num_in), args);
  check_lt(lt.layout_create(&plan.y, cuda_type(problem.y_type), num_out, num_rows, problem.num_out),
           args);
  if (problem.has_bias) set_bias(plan, args);
  for (const cublasLtMatmulHeuristicResult_t& candidate : candidates(problem, plan, args)) {
    if (is_deterministic && !is_the_same_for_all_rows(plan, candidate.algo, args)) continue;
    plan.algorithm = candidate.algo;
    return plan;
  }
  die(name_of(args) + (is_deterministic ? ": no algorithm that gives the same bits in any batch"
                                        : ": cuBLASLt knows no algorithm"));
}

const Plan& Matmul::Impl::plan_of(const LinearArgs& args) {
  const Problem problem = problem_of(args);
  const auto known = plans.find(problem);
  if (known != plans.end()) return known->second;
  return plans.emplace(problem, make_plan(problem, args)).first->second;
}

Matmul::Matmul(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Matmul::~Matmul() = default;

absl::StatusOr<std::unique_ptr<Matmul>> Matmul::create(Determinism determinism, int num_sms) {
  auto impl = std::make_unique<Impl>();
  ASSIGN_OR_RETURN(impl->lt, load_cublas_lt());
  impl->is_deterministic = determinism == Determinism::kOn;
  if (!impl->is_deterministic) impl->num_sms = num_sms;
  const cublasStatus_t status = impl->lt.create(&impl->handle);
  if (status != CUBLAS_STATUS_SUCCESS) {
    return absl::UnavailableError(std::string("cuBLASLt does not start: ") +
                                  impl->lt.status_string(status));
  }
  RETURN_IF_ERROR(
      to_status(cudaMalloc(&impl->workspace, kWorkspaceBytes + kBiasBytes), "matmul workspace"));
  return std::unique_ptr<Matmul>(new Matmul(std::move(impl)));
}

bool Matmul::is_deterministic() const { return impl_->is_deterministic; }

void Matmul::run(const LinearArgs& args, cudaStream_t stream) {
  if (args.y.numel() == 0) return;
  const Plan& plan = impl_->plan_of(args);
  impl_->set_rows(plan, args.x.dim(0), args);
  if (!args.bias.empty()) {
    // For other rows cuBLASLt has but algorithms that round the product before they add the bias.
    check(alignment_of(args.x, args.weight.num_in) == 16 &&
              alignment_of(args.y, args.weight.num_out) == 16,
          "linear with a bias on the GPU: rows of whole 16-byte vectors");
    const Tensor bias(impl_->bias_slot(), args.y.dtype, {args.bias.dim(0)});
    check(static_cast<size_t>(bias.numel()) * size_of(bias.dtype) <= kBiasBytes, "linear: bias");
    round_bias(bias, args.bias, stream);
  }
  const float alpha = 1;
  const float beta = 0;
  impl_->check_lt(
      impl_->lt.matmul(impl_->handle, plan.operation, &alpha, args.weight.packed.data, plan.w,
                       args.x.data, plan.x, &beta, args.y.data, plan.y, args.y.data, plan.y,
                       &plan.algorithm, impl_->workspace, kWorkspaceBytes, stream),
      args);
}

}  // namespace pbserve::kernels::cuda
