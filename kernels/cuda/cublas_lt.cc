#include "kernels/cuda/cublas_lt.h"

#include <dlfcn.h>

#include <string>

namespace pbserve::kernels::cuda {
namespace {

// As the loader is configured, then where NVIDIA's packages put it.
constexpr const char* kFolders[] = {"", "/usr/local/cuda/lib64/"};

absl::StatusOr<void*> open_library() {
  const std::string name = "libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR);
  std::string reasons;
  for (const char* folder : kFolders) {
    void* library = dlopen((folder + name).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr) return library;
    reasons += std::string(reasons.empty() ? "" : "; ") + dlerror();
  }
  return absl::UnavailableError("cuBLASLt cannot be loaded: " + reasons);
}

template <class Function>
bool find(void* library, const char* name, Function& to, std::string& missing) {
  to = reinterpret_cast<Function>(dlsym(library, name));
  if (to == nullptr) missing = name;
  return to != nullptr;
}

}  // namespace

absl::StatusOr<CublasLt> load_cublas_lt() {
  ASSIGN_OR_RETURN(void* const from, open_library());
  CublasLt lt;
  std::string missing;
  const bool ok = find(from, "cublasLtCreate", lt.create, missing) &&
                  find(from, "cublasLtDestroy", lt.destroy, missing) &&
                  find(from, "cublasLtGetStatusString", lt.status_string, missing) &&
                  find(from, "cublasLtMatrixLayoutCreate", lt.layout_create, missing) &&
                  find(from, "cublasLtMatrixLayoutDestroy", lt.layout_destroy, missing) &&
                  find(from, "cublasLtMatrixLayoutSetAttribute", lt.layout_set, missing) &&
                  find(from, "cublasLtMatmulDescCreate", lt.operation_create, missing) &&
                  find(from, "cublasLtMatmulDescDestroy", lt.operation_destroy, missing) &&
                  find(from, "cublasLtMatmulDescSetAttribute", lt.operation_set, missing) &&
                  find(from, "cublasLtMatmulPreferenceCreate", lt.preference_create, missing) &&
                  find(from, "cublasLtMatmulPreferenceDestroy", lt.preference_destroy, missing) &&
                  find(from, "cublasLtMatmulPreferenceSetAttribute", lt.preference_set, missing) &&
                  find(from, "cublasLtMatmulAlgoGetHeuristic", lt.get_heuristic, missing) &&
                  find(from, "cublasLtMatmulAlgoConfigGetAttribute", lt.algo_get, missing) &&
                  find(from, "cublasLtMatmulAlgoCheck", lt.algo_check, missing) &&
                  find(from, "cublasLtMatmul", lt.matmul, missing);
  if (!ok) return absl::UnavailableError("cuBLASLt has no function " + missing);
  return lt;
}

}  // namespace pbserve::kernels::cuda
