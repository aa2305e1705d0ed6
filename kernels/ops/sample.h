// Logits -> next token. The draw comes from a counter generator keyed by (seed, position), so a
// token does not depend on the batch it was drawn in, nor on the backend.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace pbserve::kernels {

// Ids that may not be drawn yet (ends of text before min_tokens); unused entries are -1.
inline constexpr int kMaxBannedIds = 32;

struct SampleArgs {
  Tensor token;        // [B] int32, written
  Tensor logits;       // [B, V] float32; read only
  Tensor temperature;  // [B] float32; 0 = greedy, the lowest id of equal logits
  Tensor top_k;        // [B] int32; 0 = all
  Tensor top_p;        // [B] float32 in (0, 1]
  Tensor min_p;        // [B] float32 in [0, 1]: keep p >= min_p * max p
  Tensor seed;         // [B] uint64
  Tensor position;     // [B] int32, of the token to draw
  Tensor banned;       // [B, kMaxBannedIds] int32
};

// Order of the filters, as in vLLM: temperature, top-k, top-p, min-p.
void sample(const SampleArgs& args, const Stream& stream);

namespace cpu { void sample(const SampleArgs& args, ThreadPool& pool); }
namespace cuda { void sample(const SampleArgs& args, CudaHandle stream); }

}  // namespace pbserve::kernels
