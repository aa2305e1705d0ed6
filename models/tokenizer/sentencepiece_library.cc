#include "models/tokenizer/sentencepiece_library.h"

#include <dlfcn.h>

#include <filesystem>

#include "models/message.h"

namespace pbserve::models {
namespace {

// The module's libraries look for their symbols in themselves before the program. Sanitizers abort
// on the flag; under them only programs without another Protobuf can load the module.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kOwnSymbolsFirst = 0;
#else
constexpr int kOwnSymbolsFirst = RTLD_DEEPBIND;
#endif

std::filesystem::path find_module() {
  constexpr char kName[] = "libpbserve_sentencepiece.so";
  std::error_code ignored;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path();
  for (const auto& folder : {program, program.parent_path() / "lib" / "pbserve"}) {
    if (std::filesystem::exists(folder / kName, ignored)) return folder / kName;
  }
  return PBSERVE_SENTENCEPIECE_MODULE;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SentencePieceModule>> open_sentencepiece() {
  void* library = dlopen(find_module().c_str(), RTLD_NOW | RTLD_LOCAL | kOwnSymbolsFirst);
  void* entry = library == nullptr ? nullptr : dlsym(library, kSentencePieceEntry);
  if (entry == nullptr) {
    return absl::UnavailableError(
        message("the SentencePiece module cannot be loaded: ", dlerror()));
  }
  return std::unique_ptr<SentencePieceModule>(reinterpret_cast<SentencePieceEntry*>(entry)());
}

}  // namespace pbserve::models
