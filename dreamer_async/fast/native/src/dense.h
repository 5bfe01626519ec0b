// A stack of dense layers for a tile of rows.

#pragma once

#include <vector>

#include "gemm.h"
#include "norm.h"
#include "structs.h"

namespace {

constexpr long TILE_ROWS = 48;  // a multiple of both numbers of rows of a block

inline int tile_from(long at, long end) {
  return static_cast<int>(end - at < TILE_ROWS ? end - at : TILE_ROWS);
}

// y = stack(x) for `tile` rows. What is saved of them goes to the rows `at`, at + apart, ...
inline void forward_tile(const DenseLayer *layers, int count, long at, long apart, int tile,
                         const float *x, long ldx, float *y, long ldy) {
  long width = 0;
  for (int l = 0; l < count; l++) width = layers[l].outputs > width ? layers[l].outputs : width;
  thread_local std::vector<float> memory;
  memory.resize(2 * TILE_ROWS * width);
  float *spare = memory.data(), *active = spare + TILE_ROWS * width;
  for (int l = 0; l < count; l++) {
    const DenseLayer &layer = layers[l];
    const int N = layer.outputs;
    const bool last = l == count - 1;
    float *out = last ? y : active;
    const long ldo = last ? ldy : N;
    if (!layer.gain) {
      gemm(layer.bfloat16, tile, N, layer.inputs, x, ldx, layer.kernel, layer.bias, out, ldo);
      continue;
    }
    float *pre_norm = layer.pre_norm && apart == 1 ? layer.pre_norm + at * N : spare;
    gemm(layer.bfloat16, tile, N, layer.inputs, x, ldx, layer.kernel, layer.bias, pre_norm, N);
    for (int i = 0; i < tile; i++) {
      if (layer.pre_norm && apart > 1)
        std::memcpy(layer.pre_norm + (at + i * apart) * N, pre_norm + i * N, N * 4);
      norm_silu(N, pre_norm + i * N, layer.gain, out + i * ldo);
    }
    x = out;
    ldx = ldo;
  }
}

// The same of rows of which nothing is saved.
inline void forward_tile(const DenseLayer *layers, int count, int tile, const float *x, long ldx,
                         float *y, long ldy) {
  forward_tile(layers, count, 0, 1, tile, x, ldx, y, ldy);
}

}  // namespace
