// Logits -> next token. The draw comes from a counter generator keyed by (seed, position), so a
// token does not depend on the batch it was drawn in, nor on the backend.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace pbserve::kernels {

// Ids that may not be drawn yet (ends of text before min_tokens); unused entries are -1.
inline constexpr int kMaxBannedIds = 32;

struct SampleArgs {
  Tensor token;        // [S] int32: row b's token is written at token[index[b]]
  Tensor index;        // [B] int32, distinct, each in [0, S)
  Tensor logits;       // [B, V] float32; read only
  Tensor temperature;  // [B] float32; 0 = greedy, the lowest id of equal logits
  Tensor top_k;        // [B] int32; 0 = all
  Tensor top_p;        // [B] float32 in (0, 1]
  Tensor min_p;        // [B] float32 in [0, 1]: keep p >= min_p * max p
  Tensor seed;         // [B] uint64
  Tensor position;     // [B] int32, of the token to draw
  Tensor banned;       // [B, kMaxBannedIds] int32
};

// Written in place of a token when a row has no logit above -infinity that is not banned.
inline constexpr int32_t kNoToken = -1;

// Order of the filters, as in vLLM: temperature, top-k, top-p, min-p. Each keeps the candidates
// that come first by (logit descending, id ascending). Logits that are not numbers are never drawn.
void sample(const SampleArgs& args, const Stream& stream);

namespace cpu {
void sample(const SampleArgs& args, ThreadPool& pool);
}
namespace cuda {
void sample(const SampleArgs& args, CudaHandle stream);
}

}  // namespace pbserve::kernels
