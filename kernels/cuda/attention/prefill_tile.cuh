// Which part of the work a tile is: 128 query rows of one head, and the key blocks they attend to.
#pragma once

#include "kernels/cuda/attention/prefill_params.h"

namespace pbserve::kernels::cuda {

// Key blocks are worked off in one order by producer and consumers: natural blocks from
// `last_block` down to `first_block`, read from the pages, with PBS from the job's own; then, with
// PBS, the blocks whose bits are set in `mask`, from the highest down, read from the pages.
struct PrefillTile {
  int head;
  int kv_head;
  int row_begin;         // in q and out
  int num_rows;          // of the part, from row_begin on; at most kBlockM are the tile's
  int position;          // absolute, of the first row
  int kv_len;            // keys of the sequence that exist
  int last_block;        // holds the key of the tile's last row
  int first_block;       // of the own segment; dense: 0
  const int32_t* pages;  // of the sequence
  const uint32_t* mask;  // [num_words]
  int num_words;
};

// Tiles in the order they are handed out: the longest rows first, so that the last ones to start
// are short; all heads of a section side by side, so that they find each other's keys in the L2
// cache (FlashAttention-3's scheduler); sections one after the other.
template <int kBlockM, bool kIsSparse>
__device__ inline PrefillTile tile_at(const PrefillParams& params, int index) {
  int number = 0;
  while (number + 1 < params.num_parts && index >= params.parts[number + 1].tile_begin) ++number;
  const PrefillPart& part = params.parts[number];
  const int local = index - part.tile_begin;
  const int section_tiles = part.num_row_tiles * part.heads_per_section;
  const int in_section = local % section_tiles;
  const int row_tile = part.num_row_tiles - 1 - in_section / part.heads_per_section;
  const int first_row = row_tile * kBlockM;

  PrefillTile tile;
  tile.head = local / section_tiles * part.heads_per_section + in_section % part.heads_per_section;
  tile.kv_head = tile.head / (params.num_q_heads / params.num_kv_heads);
  tile.row_begin = part.row_begin + first_row;
  tile.num_rows = part.num_rows - first_row;
  tile.position = part.position + first_row;
  tile.kv_len = part.position + part.num_rows;
  const int last_position = tile.position + min(tile.num_rows, kBlockM) - 1;
  tile.last_block = last_position / 128;
  tile.pages = params.block_tables + int64_t{part.sequence} * params.max_pages;
  tile.first_block = 0;
  tile.mask = nullptr;
  tile.num_words = 0;
  if constexpr (kIsSparse) {
    tile.first_block = tile.last_block / params.segment_blocks * params.segment_blocks;
    tile.mask = params.mask + tile.head * params.mask_head_stride +
                (params.first_block + row_tile) * params.mask_block_stride;
    tile.num_words = (tile.first_block + 31) / 32;
  }
  return tile;
}

// Word i of the mask, without bits of the own segment or behind it, which mean nothing.
__device__ inline uint32_t mask_word(const PrefillTile& tile, int i) {
  const int num_bits = tile.first_block - i * 32;
  return num_bits >= 32 ? tile.mask[i] : tile.mask[i] & ((1u << num_bits) - 1);
}

// By a whole warp.
__device__ inline int num_key_blocks(const PrefillTile& tile) {
  unsigned int taken = 0;
  for (int i = threadIdx.x % 32; i < tile.num_words; i += 32) taken += __popc(mask_word(tile, i));
  return tile.last_block - tile.first_block + 1 +
         static_cast<int>(__reduce_add_sync(0xFFFFFFFFu, taken));
}

}  // namespace pbserve::kernels::cuda
