// Stacks of dense layers, each linear, RMSNorm, SiLU; the last one may be linear alone.
//
// A tile of rows goes through all layers while it is in the cache. What the backward pass needs are
// the outputs of the linear parts alone: everything else is computed anew from them.

#include "dense.h"

#include <algorithm>

#include "threads.h"

#if defined(HAS_BFLOAT16)
bool in_tiles = false;
#endif

namespace {

// `by` is how far what this piece of rows adds to lies from what the first one does.
void backward_tile(const DenseLayer *layers, int count, long by, long at, int tile, const float *x,
                   long ldx, const float *dy, float *dx) {
  long width = layers[0].inputs;
  for (int l = 0; l < count; l++) {
    const long out = padded(layers[l].outputs);
    width = out > width ? out : width;
  }
  thread_local std::vector<float> memory, zeros;
  const long part = TILE_ROWS * padded_stride(padded(width));
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
    const DenseLayer &layer = layers[l];
    const int N = layer.outputs, K = layer.inputs, ld = padded(N);
    float *dbias = layer.dbias + by, *dgain = layer.dgain + by;
    for (int i = 0; i < tile; i++) {
      float *row = g + static_cast<long>(i) * ld;
      if (layer.gain) norm_silu_backward(N, layer.pre_norm + (at + i) * N, layer.gain, row, dgain);
#pragma omp simd
      for (int c = 0; c < N; c++) dbias[c] += row[c];
    }
    const long lda = padded_stride(K);
    for (int i = 0; i < tile; i++) {
      if (l == 0) {
        std::memcpy(input + i * lda, x + (at + i) * ldx, K * 4);
      } else {
        const DenseLayer &below = layers[l - 1];
        norm_silu(K, below.pre_norm + (at + i) * K, below.gain, input + i * lda);
      }
    }
    gemm_transposed(layer.bfloat16, K, ld, tile, input, lda, g, ld, layer.dkernel + by);
    if (l > 0) {
      for (int i = 0; i < tile; i++)
        std::memset(next + static_cast<long>(i) * padded(K) + K, 0, (padded(K) - K) * 4);
      gemm(layer.bfloat16, tile, K, N, g, ld, layer.transposed, zeros.data(), next, padded(K));
      float *swap = g;
      g = next;
      next = swap;
    } else if (dx) {
      gemm(layer.bfloat16, tile, K, N, g, ld, layer.transposed, zeros.data(), dx + at * K, K);
    }
  }
}

}  // namespace

// y = stack(x).
extern "C" void dense_forward(const DenseLayer *layers, int count, long rows, const float *x,
                              long ldx, float *y, long ldy, int threads) {
  parallel_for((rows + TILE_ROWS - 1) / TILE_ROWS, threads, [&](long i) {
    const long at = i * TILE_ROWS;
    forward_tile(layers, count, at, 1, tile_from(at, rows), x + at * ldx, ldx, y + at * ldy, ldy);
  });
}

// The gradients of the parameters, which all lie in sums [pieces, size], of which the first is the
// result; dx = dL/dx unless it is null.
extern "C" void dense_backward(const DenseLayer *layers, int count, long rows, const float *x,
                               long ldx, const float *dy, float *dx, float *sums, long size,
                               long pieces, int threads) {
  parallel_for(pieces, threads, [&](long i) {
    std::memset(sums + i * size, 0, size * 4);
    const long end = rows * (i + 1) / pieces;
    for (long at = rows * i / pieces; at < end; at += TILE_ROWS)
      backward_tile(layers, count, i * size, at, tile_from(at, end), x, ldx, dy, dx);
  });
  constexpr long CHUNK = 4096;
  parallel_for(pieces > 1 ? (size + CHUNK - 1) / CHUNK : 0, threads, [&](long chunk) {
    const long end = std::min(size, (chunk + 1) * CHUNK);
    for (long piece = 1; piece < pieces; piece++) {
      const float *more = sums + piece * size;
#pragma omp simd
      for (long j = chunk * CHUNK; j < end; j++) sums[j] += more[j];
    }
  });
}

// Lay kernels [count, rows, columns] with any strides out as products read them.
extern "C" void pack_kernels(int bfloat16, long count, long rows, long columns,
                             const float *kernels, long apart, long row, long column,
                             float *packed) {
  std::vector<float> memory(bfloat16 ? rows * NR : 0);
  const long panel = packed_size(bfloat16, rows, NR);
  for (long i = 0; i < count; i++)
    for (long j = 0; j < columns; j += NR, packed += panel) {
      const long some = std::min<long>(NR, columns - j);
      const float *from = kernels + i * apart + j * column;
      float *to = bfloat16 ? memory.data() : packed;
      for (long k = 0; k < rows; k++, to += NR) {
        for (long l = 0; l < some; l++) to[l] = from[k * row + l * column];
        for (long l = some; l < NR; l++) to[l] = 0.0f;
      }
#if defined(HAS_BFLOAT16)
      if (bfloat16)
        low::to_panel(rows, memory.data(), NR, NR, reinterpret_cast<low::bf16 *>(packed));
#endif
    }
}

// Whether kernels may be bfloat16, where the processor multiplies it; for all threads from now on,
// in tiles if it has them and the system permits them.
extern "C" int permit_bfloat16(int tiles) {
#if defined(HAS_BFLOAT16)
  in_tiles = tiles && amx::permitted();
  return 1;
#else
  static_cast<void>(tiles);
  return 0;
#endif
}

extern "C" int panel_width() { return NR; }
