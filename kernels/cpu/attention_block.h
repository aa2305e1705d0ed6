// The one body of CPU attention. A block is up to kPageSize query tokens of the G heads that share
// a key head; keys come in tiles of kPageSize, each converted once for all G heads. Dense prefill,
// sparse prefill and decode differ only in the tiles they list.
//
// A row's result is a function of the row and of the keys in its tiles, bit for bit: products have
// one accumulator per element (tile.h), the running softmax goes tile by tile, and keys a row does
// not see weigh exactly zero.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/core/tensor.h"
#include "kernels/cpu/aligned_floats.h"
#include "kernels/cpu/softmax_row.h"

namespace pbserve::kernels::cpu {

class AttentionBlock {
 public:
  // Each thread works all its items through one object, so scratch is allocated once.
  static AttentionBlock& of_this_thread();

  // Takes the rows of q [n, Hq, D] that belong to `kv_head`; n >= 1.
  template <class T>
  void start(const Tensor& q, int64_t kv_head, int64_t num_kv_heads, float scale);

  // The tile that attend works on: keys and values [num_keys, D], num_keys in [1, kPageSize].
  template <class T>
  void load_keys(const T* k, const T* v, int64_t num_keys);

  // Token i of every head sees the first min(visible + i, num_keys) keys of the tile; visible >= 1.
  void attend(int64_t visible);
  // All tokens of one head of the group see all keys of the tile.
  void attend_head(int64_t head_in_group);

  // Writes the rows of out [n, Hq, D] that belong to the key head.
  template <class T>
  void finish(const Tensor& out);

 private:
  void attend_rows(int64_t begin, int64_t end, int64_t visible);

  int64_t num_tokens_ = 0;
  int64_t group_ = 0;  // G
  int64_t dim_ = 0;    // D
  int64_t kv_head_ = 0;
  int64_t num_keys_ = 0;
  std::vector<SoftmaxState> states_;  // [G n]; row = head_in_group * n + token
  AlignedFloats q_;                   // [G n, packed_stride(D)]
  AlignedFloats out_;                 // [G n, D], not yet divided by the softmax sums
  AlignedFloats k_;                   // [D, kPageSize]: keys are columns
  AlignedFloats v_;                   // [kPageSize, D]
  AlignedFloats logits_;              // [kRowChunk, kPageSize]
};

}  // namespace pbserve::kernels::cpu
