// Memory and streams of a build whose CUDA half has no kernels. choose_device never picks a GPU
// then; a caller that makes up a CUDA device gets an error where there is a Status, and dies where
// there is none.
#include "kernels/core/buffer.h"
#include "kernels/core/copy_stream.h"
#include "kernels/core/graph.h"
#include "kernels/core/stream.h"

namespace pbserve::kernels::cuda {
namespace {

constexpr const char kAbsent[] = "this build has no CUDA kernels";

absl::Status absent() { return absl::UnavailableError(kAbsent); }

[[noreturn]] void die_absent(Location where = Location::current()) { die(kAbsent, where); }

}  // namespace

std::string_view why_unsupported(int) { return kAbsent; }

absl::StatusOr<std::byte*> allocate(int, size_t) { return absent(); }
void release(int, std::byte*) { die_absent(); }
absl::StatusOr<std::byte*> allocate_pinned(size_t) { return absent(); }
void release_pinned(std::byte*) { die_absent(); }
void copy_to_device(void*, const void*, size_t, CudaHandle) { die_absent(); }
void copy_to_host(void*, const void*, size_t, CudaHandle) { die_absent(); }
void fill_zero(void*, size_t, CudaHandle) { die_absent(); }

absl::StatusOr<CudaHandle> create_stream(int, Determinism) { return absent(); }
absl::StatusOr<CudaHandle> create_urgent_stream(int, Determinism) { return absent(); }
absl::StatusOr<std::pair<CudaHandle, CudaHandle>> create_partition(int, int, Determinism) {
  return absent();
}
int num_sms(CudaHandle) { die_absent(); }
void destroy_stream(CudaHandle) { die_absent(); }
void synchronize(CudaHandle) { die_absent(); }
void bind_thread(CudaHandle) { die_absent(); }
CudaHandle create_event() { die_absent(); }
void destroy_event(CudaHandle) { die_absent(); }
void record_event(CudaHandle, CudaHandle) { die_absent(); }
void hold_stream(CudaHandle, CudaHandle) { die_absent(); }
bool is_event_reached(CudaHandle) { die_absent(); }
void wait_event(CudaHandle) { die_absent(); }
double ms_between(CudaHandle, CudaHandle) { die_absent(); }

absl::StatusOr<CudaHandle> create_copy_stream(int) { return absent(); }
void wait_in_stream(CudaHandle, CudaHandle) { die_absent(); }
void copy_rows_to_host(const RowCopy&, CudaHandle) { die_absent(); }
void copy_rows_to_device(const RowCopy&, CudaHandle) { die_absent(); }

void begin_recording(CudaHandle) { die_absent(); }
absl::StatusOr<CudaHandle> end_recording(CudaHandle) { return absent(); }
void launch_graph(CudaHandle, CudaHandle) { die_absent(); }
void destroy_graph(CudaHandle) { die_absent(); }

}  // namespace pbserve::kernels::cuda
