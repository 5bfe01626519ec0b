// The products of Winograd convolutions: at each point one gemm of transformed kernels and
// transformed tiles over the channels, and one of both gradients over the tiles for the gradient of
// the kernel.

#pragma once

#include <vector>

#include "../gemm.h"

namespace {

constexpr int OUTPUT_PANEL = 4;  // outputs whose kernels lie side by side: MR of the micro-kernel
constexpr int TILE_BLOCK = LANES == 16 ? 6 : 3;  // vectors of tiles, its NR

inline int whole_panels(int outputs) {
  return (outputs + OUTPUT_PANEL - 1) / OUTPUT_PANEL * OUTPUT_PANEL;
}

// Memory for at least so many.
template <typename T>
inline T *sized(std::vector<T> &memory, long size) {
  if (static_cast<long>(memory.size()) < size) memory.resize(size);
  return memory.data();
}

// The same, from the beginning of a line of the cache on.
inline float *sized_from_cache_line(std::vector<float> &memory, long size) {
  float *begin = sized(memory, size + 16);
  return begin + (-reinterpret_cast<intptr_t>(begin) / 4 & 15);
}

// Some tiles transformed, [blocks, points, channels, tiles of a block] vectors.
struct TransformedTiles {
  int points = 0, channels = 0, tiles = 0, block = 0;
  long point = 0;  // floats from one point to the next
  float *first = nullptr;
  std::vector<float> memory;

  void shape(int of_points, int of_channels, int of_tiles, int of_block) {
    points = of_points;
    channels = of_channels;
    tiles = of_tiles;
    block = of_block;
    point = padded_stride(static_cast<long>(channels) * block * LANES);
    first = sized_from_cache_line(memory, (tiles + block - 1) / block * points * point);
  }

  float *at(int channel, int tile) {
    return first + tile / block * points * point +
           (static_cast<long>(channel) * block + tile % block) * LANES;
  }
};

// Outputs of OUTPUT_PANEL channels before A^T, [OUTPUT_PANEL, tiles, points] vectors.
struct TransformedOutputs {
  long tile = 0, channel = 0;  // floats from one to the next
  float *first = nullptr;
  std::vector<float> memory;

  void shape(int points, int tiles) {
    tile = padded_stride(static_cast<long>(points) * LANES);
    channel = tiles * tile;
    first = sized_from_cache_line(memory, OUTPUT_PANEL * channel);
  }

  float *at(int of_channel, int of_tile) { return first + of_channel * channel + of_tile * tile; }
};

// The micro-kernel. Not inlined, here and below: there GCC has registers for all sums.
//
// y[OUTPUT_PANEL outputs, V tiles, points] = the sums over channels of
// kernel[points, channels, OUTPUT_PANEL] times x[points, channels, V tiles].
template <int V>
__attribute__((noinline)) void winograd_micro_kernel(int points, int channels, const float *x,
                                                     long x_point, long x_channel,
                                                     const float *kernel, float *y, long y_tile,
                                                     long y_channel) {
  for (int i = 0; i < points; i++, x += x_point, y += LANES) {
    vec sums[OUTPUT_PANEL][V];  // not set by braces: GCC would take them through memory
#pragma GCC unroll 8
    for (int o = 0; o < OUTPUT_PANEL; o++)
#pragma GCC unroll 8
      for (int v = 0; v < V; v++) sums[o][v] = vec{};
    for (int c = 0; c < channels; c++, kernel += OUTPUT_PANEL) {
      vec read[V];
#pragma GCC unroll 8
      for (int v = 0; v < V; v++) {
        read[v] = load_vec(x + c * x_channel + v * LANES);
        keep_in_register(read[v]);
      }
#pragma GCC unroll 8
      for (int o = 0; o < OUTPUT_PANEL; o++)
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) sums[o][v] += kernel[o] * read[v];
    }
#pragma GCC unroll 8
    for (int o = 0; o < OUTPUT_PANEL; o++)
#pragma GCC unroll 8
      for (int v = 0; v < V; v++) store_vec(y + o * y_channel + v * y_tile, sums[o][v]);
  }
}

// OUTPUT_PANEL outputs at all points; the kernel is [points, inputs, OUTPUT_PANEL].
inline void winograd_gemm(int inputs, TransformedTiles &x, const float *kernel,
                          TransformedOutputs &y) {
  const long x_channel = static_cast<long>(x.block) * LANES;
  int t = 0;
  const auto run = [&](auto width) {
    constexpr int V = decltype(width)::value;
    winograd_micro_kernel<V>(x.points, inputs, x.at(0, t), x.point, x_channel, kernel, y.at(0, t),
                             y.tile, y.channel);
    t += V;
  };
  while (x.tiles - t >= TILE_BLOCK) run(Constant<TILE_BLOCK>{});
  if (x.tiles - t >= 4) run(Constant<4>{});
  while (x.tiles - t >= 2) run(Constant<2>{});
  if (x.tiles - t >= 1) run(Constant<1>{});
}

// Adds the sum over the lanes of each of OUTPUT_PANEL vectors.
inline void add_lane_sums(const vec *x, float *to) {
#if defined(__AVX2__)
  __m256 a[OUTPUT_PANEL];
  for (int o = 0; o < OUTPUT_PANEL; o++) {
    std::memcpy(a + o, x + o, 32);
    for (int part = 1; part < LANES / 8; part++) {
      __m256 b;
      std::memcpy(&b, reinterpret_cast<const char *>(x + o) + 32 * part, 32);
      a[o] = _mm256_add_ps(a[o], b);
    }
  }
  const __m256 sums = _mm256_hadd_ps(_mm256_hadd_ps(a[0], a[1]), _mm256_hadd_ps(a[2], a[3]));
  const __m128 both = _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
  _mm_storeu_ps(to, _mm_add_ps(_mm_loadu_ps(to), both));
#else
  for (int o = 0; o < OUTPUT_PANEL; o++)
    for (int lane = 0; lane < LANES; lane++) to[o] += x[o][lane];
#endif
}

// Sums of K channels of x times `PANELS` of OUTPUT_PANEL channels of y, added to sum[K, outputs].
template <int K, int PANELS>
__attribute__((noinline)) void gradient_micro_kernel(int tiles, const float *x, long x_channel,
                                                     const float *y, long y_block, float *sum,
                                                     long outputs) {
  constexpr int OUTPUTS = PANELS * OUTPUT_PANEL;
  vec sums[K][OUTPUTS];
#pragma GCC unroll 8
  for (int k = 0; k < K; k++)
#pragma GCC unroll 8
    for (int o = 0; o < OUTPUTS; o++) sums[k][o] = vec{};
  for (int from = 0; from < tiles; from += TILE_BLOCK, y += y_block) {
    const int count = tiles - from < TILE_BLOCK ? tiles - from : TILE_BLOCK;
    for (int v = 0; v < count; v++, x += LANES) {
      vec read[K];
#pragma GCC unroll 8
      for (int k = 0; k < K; k++) {
        read[k] = load_vec(x + k * x_channel);
        keep_in_register(read[k]);
      }
#pragma GCC unroll 8
      for (int o = 0; o < OUTPUTS; o++) {
        vec b = load_vec(y + (v + o * TILE_BLOCK) * LANES);
        keep_in_register(b);
#pragma GCC unroll 8
        for (int k = 0; k < K; k++) sums[k][o] += read[k] * b;
      }
    }
  }
#pragma GCC unroll 8
  for (int k = 0; k < K; k++)
#pragma GCC unroll 8
    for (int o = 0; o < OUTPUTS; o += OUTPUT_PANEL)
      add_lane_sums(sums[k] + o, sum + k * outputs + o);
}

// Adds the gradient of the kernel at all points, [points, inputs, padded(outputs)]; x lies in one
// block, y in those of TILE_BLOCK tiles.
inline void gradient_gemm(int inputs, TransformedTiles &x, TransformedTiles &y, float *sum) {
  constexpr int MOST = LANES == 16 ? 6 : 3;
  const int N = padded(y.channels);
  const long x_channel = static_cast<long>(x.block) * LANES, y_block = y.points * y.point;
  for (int i = 0; i < x.points; i++)
    for (int c = 0; c < inputs;) {
      int o = 0;
      const auto run = [&](auto channels, auto panels) {
        constexpr int K = decltype(channels)::value, PANELS = decltype(panels)::value;
        for (; o + PANELS * OUTPUT_PANEL <= y.channels; o += PANELS * OUTPUT_PANEL)
          gradient_micro_kernel<K, PANELS>(x.tiles, x.at(c, 0) + i * x.point, x_channel,
                                           y.at(o, 0) + i * y.point, y_block, sum + o, N);
        return K;
      };
      int done;
      if (inputs - c >= MOST) {
        done = run(Constant<MOST>{}, Constant<1>{});
      } else if (inputs - c >= 2) {
        done = run(Constant<2>{}, Constant<1>{});
      } else {  // two panels, so that there are sums enough to hide how long one takes
        run(Constant<1>{}, Constant<2>{});
        done = run(Constant<1>{}, Constant<1>{});
      }
      sum += done * N;
      c += done;
    }
}

// x[rows of 8] floats to y[8, rows], of whole 8x8 blocks.
inline void transpose_8x8(const float *x, long x_step, float *y, long y_step) {
#if defined(__AVX2__)
  __m256 a[8], b[8];
  for (int i = 0; i < 8; i++) a[i] = _mm256_loadu_ps(x + i * x_step);
  for (int i = 0; i < 8; i += 2) {
    b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
  }
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 2; j++) {
      a[i + 2 * j] = _mm256_shuffle_ps(b[i + j], b[i + j + 2], 0x44);
      a[i + 2 * j + 1] = _mm256_shuffle_ps(b[i + j], b[i + j + 2], 0xee);
    }
  for (int i = 0; i < 4; i++) {
    _mm256_storeu_ps(y + i * y_step, _mm256_permute2f128_ps(a[i], a[i + 4], 0x20));
    _mm256_storeu_ps(y + (i + 4) * y_step, _mm256_permute2f128_ps(a[i], a[i + 4], 0x31));
  }
#else
  for (int i = 0; i < 8; i++)
    for (int k = 0; k < 8; k++) y[k * y_step + i] = x[i * x_step + k];
#endif
}

// The same gemm over tiles and lanes, for which y is transposed: vectors of outputs.
inline void gradient_gemm_transposed(int inputs, TransformedTiles &x, TransformedTiles &y,
                                     std::vector<float> &memory, float *sum) {
  const int N = padded(y.channels), positions = x.tiles * LANES;
  float *transposed = sized(memory, static_cast<long>(positions) * N);
  std::memset(transposed, 0, static_cast<long>(positions) * N * 4);
  for (int i = 0; i < x.points; i++) {
    for (int t = 0; t < y.tiles; t++) {
      const float *from = y.at(0, t) + i * y.point;
      float *to = transposed + static_cast<long>(t) * LANES * N;
      int o = 0;
      for (; o + 8 <= y.channels; o += 8)
        for (int l = 0; l < LANES; l += 8)
          transpose_8x8(from + o * TILE_BLOCK * LANES + l, TILE_BLOCK * LANES,
                        to + static_cast<long>(l) * N + o, N);
      for (; o < y.channels; o++)
        for (int l = 0; l < LANES; l++)
          to[static_cast<long>(l) * N + o] = from[o * TILE_BLOCK * LANES + l];
    }
    for (int j = 0; j < N; j += NR)
      gemm_panel(inputs, positions, x.at(0, 0) + i * x.point, positions, 1, transposed + j, N,
                 sum + j, N, sum + j, N);
    sum += static_cast<long>(inputs) * N;
  }
}

// Whether so few vectors are added up at once that summing their lanes costs more than that.
inline bool transposing_pays(int vectors, int inputs, int outputs) {
  const int sums = inputs * whole_panels(outputs) * (vectors + 4);
  const int transposed = inputs * padded(outputs) * vectors + 2 * outputs * vectors;
  return transposed < sums;
}

}  // namespace
