// What the prefill kernel gets: raw pointers, sizes, the maps of the copy engine.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>

#include <cstdint>

namespace pbserve::kernels::cuda {

inline constexpr int kPrefillTileRows = 128;    // query rows of a tile
inline constexpr int kMaxPrefillSegments = 32;  // of one launch: they travel as kernel parameters

// Consecutive rows of one sequence, as PrefillSegment, and where its tiles begin.
struct PrefillPart {
  int32_t row_begin;
  int32_t num_rows;
  int32_t position;  // absolute position of the first row
  int32_t sequence;
  int32_t tile_begin;         // first of its tiles in the launch
  int32_t num_row_tiles;      // of kPrefillTileRows
  int32_t heads_per_section;  // query heads whose tiles are worked off together: see tile_at()
};

struct PrefillParams {
  CUtensorMap q_map;      // [T, Hq, D], boxes of kPrefillTileRows rows of one head
  CUtensorMap k_map;      // k_pages as rows [num_pages Hkv P, D], boxes of a page
  CUtensorMap v_map;      // v_pages likewise
  CUtensorMap own_k_map;  // plan.own.k as rows [job pages Hkv P, D]; PBS only, as all below it
  CUtensorMap own_v_map;
  const uint32_t* mask;  // [Hq, job blocks, words]
  int64_t mask_head_stride;
  int64_t mask_block_stride;
  int32_t segment_blocks;  // S / B
  int32_t job_block;       // job.begin / B
  int32_t first_block;     // query block of the job that row_begin of the part belongs to

  __nv_bfloat16* out;           // [T, Hq, D]
  const int32_t* block_tables;  // [B, max_pages]
  int32_t* tile_counter;        // [2]: tiles handed out, blocks done; zero between launches
  int32_t max_pages;
  int32_t num_q_heads;
  int32_t num_kv_heads;
  int32_t num_tiles;
  int32_t num_parts;
  float scale_log2;  // scale / ln 2: the softmax runs in base 2
  PrefillPart parts[kMaxPrefillSegments];
};

}  // namespace pbserve::kernels::cuda
