// Stacks of dense layers, each linear, RMSNorm, SiLU; the last one may be linear alone.
//
// A tile of rows goes through all layers while it is in the cache. What the backward pass needs are
// the outputs of the linear parts alone: everything else is computed anew from them.

#include "dense.h"

#include "threads.h"

namespace {

void backward_tile(const Layer *layers, int count, long piece, long at, int tile, const float *x,
                   long ldx, const float *dy, float *dx) {
  long width = layers[0].inputs;
  for (int l = 0; l < count; l++) {
    const long out = padded(layers[l].outputs);
    width = out > width ? out : width;
  }
  thread_local std::vector<float> memory, zeros;
  const long part = TILE_ROWS * spread(padded(width));
  memory.resize(3 * part);
  zeros.resize(padded(width));
  float *g = memory.data(), *next = g + part, *input = next + part;
  const int outputs = layers[count - 1].outputs;
  for (int i = 0; i < tile; i++) {
    float *row = g + static_cast<long>(i) * padded(outputs);
    std::memcpy(row, dy + (at + i) * outputs, outputs * 4);
    std::memset(row + outputs, 0, (padded(outputs) - outputs) * 4);
  }
  for (int l = count - 1; l >= 0; l--) {
    const Layer &layer = layers[l];
    const int N = layer.outputs, K = layer.inputs, ld = padded(N);
    float *dbias = layer.dbias + piece * N, *dgain = layer.dgain + piece * N;
    for (int i = 0; i < tile; i++) {
      float *row = g + static_cast<long>(i) * ld;
      if (layer.gain)
        norm_silu_backward(N, layer.before + (at + i) * N, layer.gain, row, dgain);
#pragma omp simd
      for (int c = 0; c < N; c++) dbias[c] += row[c];
    }
    const long lda = spread(K);
    for (int i = 0; i < tile; i++) {
      if (l == 0) {
        std::memcpy(input + i * lda, x + (at + i) * ldx, K * 4);
      } else {
        const Layer &below = layers[l - 1];
        norm_silu(K, below.before + (at + i) * K, below.gain, input + i * lda);
      }
    }
    outer_product(K, ld, tile, input, lda, g, ld, layer.dkernel + piece * K * ld);
    if (l > 0) {
      for (int i = 0; i < tile; i++)
        std::memset(next + static_cast<long>(i) * padded(K) + K, 0, (padded(K) - K) * 4);
      product(tile, K, N, g, ld, layer.transposed, zeros.data(), next, padded(K));
      float *swap = g;
      g = next;
      next = swap;
    } else if (dx) {
      product(tile, K, N, g, ld, layer.transposed, zeros.data(), dx + at * K, K);
    }
  }
}

}  // namespace

// y = stack(x).
extern "C" void dense_forward(const Layer *layers, int count, long rows, const float *x, long ldx,
                              float *y, long ldy, int threads) {
  share((rows + TILE_ROWS - 1) / TILE_ROWS, threads, [&](long i) {
    const long at = i * TILE_ROWS;
    forward_tile(layers, count, at, 1, tile_from(at, rows), x + at * ldx, ldx, y + at * ldy, ldy);
  });
}

// Adds to the gradients of the parameters; dx = dL/dx unless it is null.
extern "C" void dense_backward(const Layer *layers, int count, long rows, const float *x, long ldx,
                               const float *dy, float *dx, long pieces, int threads) {
  share(pieces, threads, [&](long i) {
    const long end = rows * (i + 1) / pieces;
    for (long at = rows * i / pieces; at < end; at += TILE_ROWS)
      backward_tile(layers, count, i, at, tile_from(at, end), x, ldx, dy, dx);
  });
}

extern "C" int panel_width() { return PANEL; }
