#include "kernels/ops/embedding.h"

#include "kernels/cpu/row_blocks.h"
#include "kernels/cpu/vec_math.h"

namespace pbserve::kernels::cpu {
namespace {

template <class To, class From>
void gather(const EmbeddingArgs& args, ThreadPool& pool) {
  const int64_t width = args.y.dim(1);
  const int64_t vocab_size = args.table.dim(0);
  const int32_t* ids = args.ids.as<int32_t>();
  const int32_t* index = args.index.empty() ? nullptr : args.index.as<int32_t>();
  const From* table = args.table.as<From>();
  To* y = args.y.as<To>();
  for_each_row(args.y.dim(0), width, pool, [&](int64_t row) {
    const int64_t at = index == nullptr ? row : index[row];
    check(at >= 0 && at < args.ids.dim(0), "embedding: index outside ids");
    const int64_t id = ids[at];
    check(id >= -1 && id < vocab_size, "embedding: id outside the vocabulary");
    for (int64_t i = 0; i < width; i += kLanes) {
      const int64_t count = std::min<int64_t>(kLanes, width - i);
      const Vec values = id < 0 ? Vec{} : load(table + id * width + i, count);
      store(y + row * width + i, values, count);
    }
  });
}

}  // namespace

void embedding(const EmbeddingArgs& args, ThreadPool& pool) {
  if (args.table.dtype == DType::kF32) return gather<float, float>(args, pool);
  args.y.dtype == DType::kF32 ? gather<float, BF16>(args, pool) : gather<BF16, BF16>(args, pool);
}

}  // namespace pbserve::kernels::cpu
