// Linked in place of the CUDA operations while they do not exist: every entry dies, naming itself.
#include "kernels/core/check.h"
#include "kernels/ops/activation.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/linear.h"
#include "kernels/ops/norm.h"
#include "kernels/ops/pbs_force.h"
#include "kernels/ops/rope.h"
#include "kernels/ops/sample.h"
#include "kernels/ops/swiglu.h"

namespace pbserve::kernels::cuda {
namespace {

[[noreturn]] void die_absent(const char* op, Location where = Location::current()) {
  die(std::string(op) + ": this build has no CUDA kernels", where);
}

}  // namespace

void rms_norm(const RmsNormArgs&, CudaHandle) { die_absent("rms_norm"); }
void rope_append(const RopeAppendArgs&, CudaHandle) { die_absent("rope_append"); }
void silu_mul(const SiluMulArgs&, CudaHandle) { die_absent("silu_mul"); }
void embedding(const EmbeddingArgs&, CudaHandle) { die_absent("embedding"); }
void pack_weight(const PackWeightArgs&, CudaHandle) { die_absent("pack_weight"); }
void linear(const LinearArgs&, CudaHandle) { die_absent("linear"); }
void swiglu(const SwigluArgs&, CudaHandle) { die_absent("swiglu"); }
void prefill_attention(const PrefillAttentionArgs&, CudaHandle) { die_absent("prefill_attention"); }
void decode_attention(const DecodeAttentionArgs&, CudaHandle) { die_absent("decode_attention"); }
int64_t decode_scratch_bytes(const DecodeScratchShape&) { die_absent("decode_scratch_bytes"); }
int64_t pbs_scratch_bytes(const PbsPlanShape&) { die_absent("pbs_scratch_bytes"); }
void pbs_order(const PbsOrderArgs&, CudaHandle) { die_absent("pbs_order"); }
void pbs_pool(const PbsPoolArgs&, CudaHandle) { die_absent("pbs_pool"); }
void pbs_select(const PbsSelectArgs&, CudaHandle) { die_absent("pbs_select"); }
void pbs_audit(const PbsAuditArgs&, CudaHandle) { die_absent("pbs_audit"); }
void pbs_prefill(const PbsPrefillArgs&, CudaHandle) { die_absent("pbs_prefill"); }
void pbs_force_mask(const PbsForceMaskArgs&, CudaHandle) { die_absent("pbs_force_mask"); }
void sample(const SampleArgs&, CudaHandle) { die_absent("sample"); }

}  // namespace pbserve::kernels::cuda
