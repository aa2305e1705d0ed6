// Angles are the float32 product position * inv_freq, rounded as `transformers` rounds it: at a
// million positions that rounding is 0.06 rad, and a model is trained with it. Sine and cosine of a
// row are computed once and shared by its heads.
#include "kernels/ops/rope.h"

#include <cmath>

#include "kernels/cpu/row_blocks.h"
#include "kernels/cpu/vec_math.h"

namespace pbserve::kernels::cpu {
namespace {

constexpr int64_t kHeadDimMax = 512;

struct Rotation {
  float cos[kHeadDimMax / 2];
  float sin[kHeadDimMax / 2];
};

void set_rotation(Rotation& rotation, const RopeAppendArgs& args, int64_t row) {
  const float position = static_cast<float>(args.positions.as<int32_t>()[row]);
  const float* inv_freq = args.inv_freq.as<float>();
  for (int64_t i = 0; i < args.inv_freq.dim(0); ++i) {
    const float angle = position * inv_freq[i];
    rotation.cos[i] = std::cos(angle) * args.rope_scale;
    rotation.sin[i] = std::sin(angle) * args.rope_scale;
  }
}

// to = the head, normed by `norm` (if any), with pairs (i, i + dim / 2) rotated. dim is a multiple
// of 16, so its half is whole vectors on AVX2; on AVX-512 the last one may be half full.
template <class T>
void rotate_head(T* to, const T* from, const Rotation& rotation, const float* norm, float eps,
                 int64_t dim) {
  float scale = 1.f;
  if (norm != nullptr) {
    Vec squares = {};
    for (int64_t i = 0; i < dim; i += kLanes) squares += load(from + i) * load(from + i);
    scale = 1.f / std::sqrt(sum(squares) / static_cast<float>(dim) + eps);
  }
  const int64_t half = dim / 2;
  for (int64_t i = 0; i < half; i += kLanes) {
    const int64_t count = std::min<int64_t>(kLanes, half - i);
    Vec low = load(from + i, count);
    Vec high = load(from + half + i, count);
    if (norm != nullptr) {
      low = low * scale * load(norm + i, count);
      high = high * scale * load(norm + half + i, count);
    }
    const Vec cos = load(rotation.cos + i, count);
    const Vec sin = load(rotation.sin + i, count);
    store(to + i, low * cos - high * sin, count);
    store(to + half + i, high * cos + low * sin, count);
  }
}

template <class T>
void append_rows(const RopeAppendArgs& args, ThreadPool& pool) {
  const int64_t dim = args.q.dim(2);
  const int64_t num_q_heads = args.q.dim(1);
  const int64_t num_kv_heads = args.k_pages.dim(1);
  const int64_t num_heads = args.qkv.dim(1);
  const int64_t num_slots = args.k_pages.dim(0) * kPageSize;
  const int64_t* slots = args.slots.as<int64_t>();
  const float* q_norm = args.q_norm.empty() ? nullptr : args.q_norm.as<float>();
  const float* k_norm = args.k_norm.empty() ? nullptr : args.k_norm.as<float>();
  for_each_row(args.q.dim(0), num_heads * dim, pool, [&](int64_t row) {
    Rotation rotation;
    set_rotation(rotation, args, row);
    const T* heads = args.qkv.as<T>() + row * num_heads * dim;
    T* q = args.q.as<T>() + row * num_q_heads * dim;
    for (int64_t head = 0; head < num_q_heads; ++head) {
      rotate_head(q + head * dim, heads + head * dim, rotation, q_norm, args.norm_eps, dim);
    }
    const int64_t slot = slots[row];
    if (slot == -1) return;
    check(slot >= 0 && slot < num_slots, "rope_append: slot outside the pages");
    const T* k = heads + num_q_heads * dim;
    const T* v = k + num_kv_heads * dim;
    for (int64_t head = 0; head < num_kv_heads; ++head) {
      const int64_t page_head = slot / kPageSize * num_kv_heads + head;
      const int64_t at = (page_head * kPageSize + slot % kPageSize) * dim;
      rotate_head(args.k_pages.as<T>() + at, k + head * dim, rotation, k_norm, args.norm_eps, dim);
      std::copy_n(v + head * dim, dim, args.v_pages.as<T>() + at);
    }
  });
}

}  // namespace

void rope_append(const RopeAppendArgs& args, ThreadPool& pool) {
  check(args.q.dim(2) <= kHeadDimMax, "rope_append: head size above 512");
  args.q.dtype == DType::kBF16 ? append_rows<BF16>(args, pool) : append_rows<float>(args, pool);
}

}  // namespace pbserve::kernels::cpu
