// Between the QKV product and attention: norm the heads of q and k (Qwen3), rotate them, keep q,
// write k and v into the pages of the KV cache. One pass, float32 until the last store.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "kernels/ops/kv_pages.h"

namespace pbserve::kernels {

struct RopeAppendArgs {
  Tensor q;          // [T, Hq, D], written
  Tensor k_pages;    // [num_pages, Hkv, kPageSize, D], written at `slots`
  Tensor v_pages;    // [num_pages, Hkv, kPageSize, D], written at `slots`
  Tensor qkv;        // [T, Hq + 2 Hkv, D]
  Tensor q_norm;     // [D] float32, or empty
  Tensor k_norm;     // [D] float32, or empty
  Tensor inv_freq;   // [D / 2] float32, radians per position
  Tensor positions;  // [T] int32, absolute
  Tensor slots;      // [T] int64: page * kPageSize + offset; -1 writes nothing
  float rope_scale;  // multiplies cos and sin (yarn's attention factor; else 1)
  float norm_eps;
};

// Pairs (i, i + D/2), as in the Hugging Face layout.
void rope_append(const RopeAppendArgs& args, const Stream& stream);

namespace cpu {
void rope_append(const RopeAppendArgs& args, ThreadPool& pool);
}
namespace cuda {
void rope_append(const RopeAppendArgs& args, CudaHandle stream);
}

}  // namespace pbserve::kernels
