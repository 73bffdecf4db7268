// How output tiles are cut into blocks whose scratch memory a core's own cache holds, and how threads share these out.
// A block is computed in phases, each of which needs all of the one before.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu/items.h"
#include "cpu/tensors.h"

namespace leanmark {

struct Blocks {
  int64_t tiles, block_tiles, count;
  int64_t workers;
  bool shared;  // all workers are on the same block

  int64_t first(int64_t index) const { return index * block_tiles; }
  int64_t tiles_of(int64_t index) const { return std::min(block_tiles, tiles - first(index)); }
};

// Weights are read in every block, so one has at least this many tiles, even where they overflow a cache.
constexpr int64_t kFewestTiles = 32;

// Blocks of even size, as many for every worker, in whole steps; a cache holds what `fits`.
inline Blocks blocks_of(int64_t tiles, int64_t fits, int64_t step) {
  const int64_t workers = torch::stable::get_num_threads(), most = std::max(kFewestTiles, fits);
  const bool shared = workers > 1 && tiles < workers * kFewestTiles;
  const int64_t at_once = shared ? 1 : workers;
  const int64_t count = divide_up(std::max<int64_t>(1, (tiles + most / 2) / most), at_once) * at_once;
  const int64_t block_tiles = divide_up(divide_up(tiles, count), step) * step;
  return {tiles, block_tiles, divide_up(tiles, block_tiles), workers, shared};
}

// Many tiles: every thread takes whole blocks, and what it transforms stays in its own cache.
template <class Schedule>
void run_blocks(const Schedule& s) {
  Items blocks(s.blocks.count);
  torch::stable::parallel_for(0, s.blocks.workers, 1, [&](int64_t worker, int64_t) {
    blocks.take_singly([&](int64_t index) {
      const auto block = s.block(index, worker);
      for (int phase = 0; phase < Schedule::kPhases; ++phase) s.run(phase, block, 0, s.items(phase, block));
    });
  });
}

// Few tiles: all threads work on one block, so that each reads its share of the weights only.
template <class Schedule>
void run_phases(const Schedule& s) {
  const int64_t phases = Schedule::kPhases * s.blocks.count;
  std::vector<Items> items;
  items.reserve(phases);
  for (int64_t i = 0; i < phases; ++i) {
    items.emplace_back(s.items(i % Schedule::kPhases, s.block(i / Schedule::kPhases, 0)));
  }
  torch::stable::parallel_for(0, s.blocks.workers, 1, [&](int64_t worker, int64_t) {
    for (int64_t i = 0; i < phases; ++i) {
      const auto block = s.block(i / Schedule::kPhases, worker);
      items[i].take_and_wait(s.blocks.workers, [&](int64_t begin, int64_t end) {
        s.run(i % Schedule::kPhases, block, begin, end);
      });
    }
  });
}

// A schedule has `blocks`, how many of them there are as kPhases, and of each phase how many items() it has and how
// to run() some; block() is what a worker takes with the memory that it has for it.
template <class Schedule>
void run_all(const Schedule& s) {
  s.blocks.shared ? run_phases(s) : run_blocks(s);
}

}  // namespace leanmark
