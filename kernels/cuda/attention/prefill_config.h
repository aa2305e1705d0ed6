// Tiles, threads and shared memory of the prefill kernel.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention/prefill_params.h"
#include "kernels/cuda/device/mbarrier.cuh"

namespace pbserve::kernels::cuda {

template <int kDim>
struct PrefillConfig {
  static constexpr int kHeadDim = kDim;
  static constexpr int kBlockM = kPrefillTileRows;  // query rows: 64 for each consumer warpgroup
  static constexpr int kBlockN = 128;               // keys: a page, a PBS block
  static constexpr int kNumConsumers = 2;
  static constexpr int kNumThreads = 128 * (1 + kNumConsumers);
  // What fits: at D = 128 a stage of K and V takes 64 KB of the 227.
  static constexpr int kNumStages = kDim == 128 ? 2 : 4;
  static constexpr int kNumTileSlots = 2;  // tiles announced ahead

  // 65,536 registers: 40 x 128 + 232 x 256. A consumer holds 64 scores, 64 sums, 32 packed weights;
  // with 24 the producer spills.
  static constexpr int kProducerRegisters = 40;
  static constexpr int kConsumerRegisters = 232;

  static constexpr int kPanels = kDim / 64;
  static constexpr uint32_t kPanelBytes = 128 * 128;  // 128 rows of 64 elements
  static constexpr uint32_t kTileBytes = kPanels * kPanelBytes;

  struct SharedStorage {
    alignas(1024) uint8_t q[kTileBytes];
    alignas(1024) uint8_t k[kNumStages][kTileBytes];
    alignas(1024) uint8_t v[kNumStages][kTileBytes];
    Mbarrier q_full;
    Mbarrier q_empty;
    Mbarrier k_full[kNumStages];
    Mbarrier k_empty[kNumStages];
    Mbarrier v_full[kNumStages];
    Mbarrier v_empty[kNumStages];
    Mbarrier tile_full[kNumTileSlots];
    Mbarrier tile_empty[kNumTileSlots];
    int32_t tile[kNumTileSlots];
  };
  static constexpr int kSharedBytes = sizeof(SharedStorage) + 1024;  // to align it by hand
};

// Named barriers of the block; 0 is __syncthreads'.
enum PrefillBarrier : int {
  kTurnOfFirst = 1,  // the consumers issue their products in turns
  kTurnOfSecond = 2,
  kWholeFirst = 3,  // all warps of one consumer
  kWholeSecond = 4,
};

}  // namespace pbserve::kernels::cuda
