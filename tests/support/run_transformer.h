// Drives a Transformer over one sequence as the engine would: pages in a scrambled order, prefill
// in slices of any length or row by row through the decode path, on any device.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "models/transformer.h"

namespace pbserve::test {

struct RunOptions {
  int64_t slice_len = 0;     // rows per pass through the layers; 0 = all at once
  int64_t decode_from = -1;  // rows from here on go through decode_attention one by one
};

// Takes the logits [n, V] float32 of rows [begin, begin + n), in host memory that is valid during
// the call only.
using LogitsSink = std::function<void(int64_t begin, std::span<const float> logits)>;

// Hands the logits of ids [T] to `sink` slice by slice, in order: neither the device nor the host
// ever holds more of them than a slice. A GPU takes bfloat16 models only.
void visit_logits(const models::Transformer& model, std::span<const int32_t> ids,
                  RunOptions options, const kernels::Stream& stream, const LogitsSink& sink);

// logits [T, V] float32 of ids [T].
std::vector<float> run_transformer(const models::Transformer& model, std::span<const int32_t> ids,
                                   RunOptions options, const kernels::Stream& stream);

}  // namespace pbserve::test
