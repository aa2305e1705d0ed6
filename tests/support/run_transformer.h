// Drives a Transformer over one sequence as the engine would: pages in a scrambled order, prefill
// in slices of any length or row by row through the decode path.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/transformer.h"

namespace pbserve::test {

struct RunOptions {
  int64_t slice_len = 0;     // rows per pass through the layers; 0 = all at once
  int64_t decode_from = -1;  // rows from here on go through decode_attention one by one
};

// logits [T, V] float32 of ids [T]. CPU only.
std::vector<float> run_transformer(const models::Transformer& model, std::span<const int32_t> ids,
                                   RunOptions options, const kernels::Stream& stream);

}  // namespace pbserve::test
