// The phases of every form in the vectors of one instruction set; include it once for each, after LEANMARK_TARGET.
#pragma once

#include "cpu/winograd/as_stored.h"
#include "cpu/winograd/kernel.h"

namespace leanmark::winograd {
namespace {  // of its own for every instruction set

// Vectors of kLanes numbers; a product is of kRows tiles and kPanels panels, or kStored tiles from weights as stored.
template <int kLanes, int kRows, int kPanels, int kStored>
struct PhasesOf {
  template <class Tile>
  LEANMARK_TARGET static void inputs(const Plan& p, const Block& block, int64_t begin, int64_t end) {
    transform_inputs<kLanes, Tile>(p, block, begin, end);
  }

  LEANMARK_TARGET static void products(const Plan& p, const Block& block, int64_t begin, int64_t end) {
    multiply<kLanes, kRows, kPanels>(p, block, begin, end);
  }

  LEANMARK_TARGET static void products_as_stored(const Plan& p, const Block& block, int64_t begin, int64_t end) {
    multiply_as_stored<kLanes, kStored>(p, block, begin, end);
  }

  template <class Tile>
  LEANMARK_TARGET static void outputs(const Plan& p, const Block& block, int64_t begin, int64_t end) {
    transform_outputs<kLanes, Tile>(p, block, begin, end);
  }

  template <class Tile>
  static constexpr Phases kAhead{inputs<Tile>, products, outputs<Tile>, kPanels, 1};
  static constexpr Phases kAsStored{inputs<F4>, products_as_stored, nullptr, 1, kStored};

  static const Phases& of(Form form) {
    switch (form) {
      case Form::kF2: return kAhead<F2>;
      case Form::kF4: return kAhead<F4>;
      case Form::kF4AsStored: return kAsStored;
      case Form::kF3: return kAhead<F3>;
      default: return kAhead<Stride2>;
    }
  }
};

}  // namespace
}  // namespace leanmark::winograd
