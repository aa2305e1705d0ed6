// Row gather: token embeddings, and the rows of the hidden states that need logits.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace pbserve::kernels {

struct EmbeddingArgs {
  Tensor y;      // [T, C] float32, or table's dtype
  Tensor ids;    // [T] int32 in [0, V), or -1 for a row of zeros; with an index [S] int32, S any
  Tensor index;  // [T] int32 or empty: row t takes ids[index[t]] instead of ids[t]
  Tensor table;  // [V, C]
};

void embedding(const EmbeddingArgs& args, const Stream& stream);

namespace cpu {
void embedding(const EmbeddingArgs& args, ThreadPool& pool);
}
namespace cuda {
void embedding(const EmbeddingArgs& args, CudaHandle stream);
}

}  // namespace pbserve::kernels
