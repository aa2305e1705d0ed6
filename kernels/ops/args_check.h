// The contract of every operation, checked once for all backends: shapes agree, dtypes are among
// the ones an operation takes, tensors are contiguous and start on the boundaries that vector loads
// want. A broken contract is a programmer's error: it dies naming the operand.
#pragma once

#include "kernels/ops/activation.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/linear.h"
#include "kernels/ops/norm.h"
#include "kernels/ops/pbs_force.h"
#include "kernels/ops/rope.h"
#include "kernels/ops/sample.h"
#include "kernels/ops/swiglu.h"

namespace pbserve::kernels {

void check_args(const RmsNormArgs& args);
void check_args(const RopeAppendArgs& args);
void check_args(const SiluMulArgs& args);
void check_args(const EmbeddingArgs& args);
void check_args(const PackWeightArgs& args);
void check_args(const LinearArgs& args);
void check_args(const SwigluArgs& args);
void check_args(const SampleArgs& args);
void check_args(const PrefillAttentionArgs& args);
void check_args(const DecodeAttentionArgs& args);
void check_args(const PbsPlanShape& shape);
void check_args(const PbsOrderArgs& args);
void check_args(const PbsPoolArgs& args);
void check_args(const PbsSelectArgs& args);
void check_args(const PbsAuditArgs& args);
void check_args(const PbsPrefillArgs& args);
void check_args(const PbsForceMaskArgs& args);

}  // namespace pbserve::kernels
