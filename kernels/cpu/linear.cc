// Weights are packed as panels [N / 64][K][64], zero-padded, so that the tile kernel reads them as
// one stream; they stay in their storage dtype and are widened in registers.
//
// OpenBLAS is not used: it picks its kernel, and with it the order of the sum, by the number of
// rows, and the engine promises the same tokens alone or in a batch.
#include "kernels/ops/linear.h"

#include "kernels/core/bits.h"
#include "kernels/cpu/aligned_floats.h"
#include "kernels/cpu/tile.h"

namespace pbserve::kernels::cpu {
namespace {

constexpr int64_t kPanelWidth = 64;  // columns; one row of a bf16 panel is two cache lines

// One item computes up to kRowBlock rows by kPanelsMax panels, kDepth of k at a time: its slices of
// x, of a panel and of y (203 + 64 + 196 KB in float32) share an L2 cache of 1 MB.
constexpr int64_t kRowBlock = 16 * kTileRows;
constexpr int64_t kPanelsMax = 8;
constexpr int64_t kDepth = 512;
constexpr int64_t kSliceStride = kDepth + 16;  // not a power of two: rows fall into different sets

// Half-open ranges of the rows and panels of one item.
struct Item {
  int64_t row_begin, row_end;
  int64_t panel_begin, panel_end;

  int64_t num_rows() const { return row_end - row_begin; }
  int64_t width() const { return (panel_end - panel_begin) * kPanelWidth; }
};

template <class T>
void widen(float* to, const T* from, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t present = std::min<int64_t>(kLanes, count - i);
    store(to + i, load(from + i, present), present);
  }
}

// sums [rows, width] = x W^T for the item.
template <class T>
void multiply(float* sums, float* slice, const LinearArgs& args, const Item& item) {
  const int64_t depth = args.weight.num_in;
  const T* x = args.x.as<T>() + item.row_begin * depth;
  const T* panels = args.weight.packed.as<T>();
  for (int64_t k = 0; k < depth; k += kDepth) {
    const int64_t count = std::min(kDepth, depth - k);
    for (int64_t row = 0; row < item.num_rows(); ++row) {
      widen(slice + row * kSliceStride, x + row * depth + k, count);
    }
    for (int64_t panel = item.panel_begin; panel < item.panel_end; ++panel) {
      matmul(sums + (panel - item.panel_begin) * kPanelWidth, item.width(), slice, kSliceStride,
             panels + (panel * depth + k) * kPanelWidth, kPanelWidth, item.num_rows(), kPanelWidth,
             count, k == 0 ? Accumulate::kOverwrite : Accumulate::kAdd);
    }
  }
}

// y = sums + bias in y's dtype, without the padding columns.
template <class Y>
void finish(const LinearArgs& args, const float* sums, const Item& item) {
  const int64_t num_out = args.weight.num_out;
  const int64_t first = item.panel_begin * kPanelWidth;
  const int64_t columns = std::min(item.width(), num_out - first);
  const float* bias = args.bias.empty() ? nullptr : args.bias.as<float>() + first;
  for (int64_t row = 0; row < item.num_rows(); ++row) {
    Y* y = args.y.as<Y>() + (item.row_begin + row) * num_out + first;
    for (int64_t i = 0; i < columns; i += kLanes) {
      const int64_t count = std::min<int64_t>(kLanes, columns - i);
      Vec value = load(sums + row * item.width() + i, count);
      if (bias != nullptr) value += load(bias + i, count);
      store(y + i, value, count);
    }
  }
}

template <class T>
void run_item(const LinearArgs& args, const Item& item) {
  thread_local AlignedFloats slice;
  thread_local AlignedFloats sums;
  slice.at_least(kRowBlock * kSliceStride);
  sums.at_least(kRowBlock * kPanelsMax * kPanelWidth);
  multiply<T>(sums.data(), slice.data(), args, item);
  args.y.dtype == DType::kBF16 ? finish<BF16>(args, sums.data(), item)
                               : finish<float>(args, sums.data(), item);
}

template <class T>
void pack(const PackWeightArgs& args, ThreadPool& pool) {
  const int64_t depth = args.weight.num_in;
  const T* rows = args.rows.as<T>();
  T* packed = args.weight.packed.as<T>();
  pool.parallel_for(args.rows.dim(0), [&](int64_t row) {
    const int64_t column = args.row_begin + row;
    T* to = packed + column / kPanelWidth * kPanelWidth * depth + column % kPanelWidth;
    for (int64_t k = 0; k < depth; ++k) to[k * kPanelWidth] = rows[row * depth + k];
  });
}

}  // namespace

int64_t packed_weight_numel(int64_t num_out, int64_t num_in) {
  return align_up(num_out, kPanelWidth) * num_in;
}

void pack_weight(const PackWeightArgs& args, ThreadPool& pool) {
  args.rows.dtype == DType::kBF16 ? pack<BF16>(args, pool) : pack<float>(args, pool);
}

void linear(const LinearArgs& args, ThreadPool& pool) {
  constexpr int64_t kItemsPerThread = 4;  // enough to even out threads that start late
  const int64_t num_rows = args.x.dim(0);
  const int64_t num_panels = ceil_div(args.weight.num_out, kPanelWidth);
  const int64_t row_blocks = ceil_div(num_rows, kRowBlock);
  const int64_t items_wanted = ceil_div(kItemsPerThread * pool.num_threads(), row_blocks + 1);
  const int64_t panels = std::clamp<int64_t>(num_panels / items_wanted, 1, kPanelsMax);
  const int64_t panel_groups = ceil_div(num_panels, panels);
  pool.parallel_for(row_blocks * panel_groups, [&](int64_t i) {
    const int64_t row = i / panel_groups * kRowBlock;
    const int64_t panel = i % panel_groups * panels;
    const Item item{.row_begin = row,
                    .row_end = std::min(num_rows, row + kRowBlock),
                    .panel_begin = panel,
                    .panel_end = std::min(num_panels, panel + panels)};
    args.x.dtype == DType::kBF16 ? run_item<BF16>(args, item) : run_item<float>(args, item);
  });
}

}  // namespace pbserve::kernels::cpu
