// Convolutions of maps with 3x3 or 5x5 kernels, stride 1 and zero padding, of LANES images at once.
//
// A map of a group of images is [channels, pixels, LANES]: a vector holds the same pixel of all of
// them, so that everything but sums for the gradients of kernels is done lane by lane, for small
// maps as well as for large ones. Planes of channels begin `plane` floats apart.
//
// Some tiles after the other are transformed as in tiles.h, multiplied at all points, and go back
// while they are in the second cache. The gradient of the inputs takes the same way backwards, with
// the transforms of the outputs' gradient that that of the kernel needs, too.

#pragma once

#include <vector>

#include "tiles.h"

namespace {

constexpr int GROUP = 4;  // outputs whose kernels lie side by side

inline int grouped(int outputs) { return (outputs + GROUP - 1) / GROUP * GROUP; }

// Floats from one channel of a map to the next.
inline long map_plane(int height, int width) {
  return spread(static_cast<long>(height) * width * LANES);
}

template <typename T>
inline T *sized(std::vector<T> &memory, long size) {
  if (static_cast<long>(memory.size()) < size) memory.resize(size);
  return memory.data();
}

// Transforms of some tiles: [points, channels, tiles] vectors.
struct Spectrum {
  int channels = 0, tiles = 0;
  long point = 0;  // floats from one point to the next
  float *first = nullptr;
  std::vector<float> memory;

  void shape(int points, int of_channels, int of_tiles) {
    channels = of_channels;
    tiles = of_tiles;
    point = spread(static_cast<long>(channels) * tiles * LANES);
    float *begin = sized(memory, points * point + 16);
    first = begin + (-reinterpret_cast<intptr_t>(begin) / 4 & 15);  // of a line
  }

  float *at(int point_index, int channel) {
    return first + point_index * point + static_cast<long>(channel) * tiles * LANES;
  }
};

// Memory of a thread for convolutions.
struct Workspace {
  Spectrum input, output, back;
  std::vector<float> columns, edge, turned;
};

// A map, or where one goes.
struct Map {
  int channels, height, width;
  float *x;

  long plane() const { return map_plane(height, width); }
  int across() const { return tiles(width); }
  int tile_count() const { return tiles(height) * tiles(width); }
  float *row(int channel, int row) const {
    return x + channel * plane() + static_cast<long>(row) * width * LANES;
  }
};

// Tiles [from, to) in reading order, row by row: f(row of tiles, first of them, their number, how
// many came before).
template <typename F>
inline void each_row_of_tiles(int across, int from, int to, const F &f) {
  for (int at = from; at < to;) {
    const int first = at % across, left = across - first;
    const int count = to - at < left ? to - at : left;
    f(at / across, first, count, at - from);
    at += count;
  }
}

// What a row of tiles reads or adds to: `COUNT` rows, those outside of the map elsewhere; and which
// of its columns are in the map.
template <int TAPS>
struct Reach {
  static constexpr int COUNT = Points<TAPS>::COUNT;
  float *rows[COUNT];
  int columns, first, last;  // all columns; those in the map
  long start;                // floats from column 0 to the first of all

  Reach(const Map &map, int channel, int tile_row, int tile, int count, float *outside) {
    const int row = TILE * tile_row - TAPS / 2, column = TILE * tile - TAPS / 2;
    for (int i = 0; i < COUNT; i++)
      rows[i] = row + i < 0 || row + i >= map.height ? outside : map.row(channel, row + i);
    columns = TILE * (count - 1) + COUNT;
    first = column < 0 ? -column : 0;
    last = map.width - column < columns ? map.width - column : columns;
    start = static_cast<long>(column) * LANES;
  }
};

// Of tiles [from, to) the transforms of what they read.
template <int TAPS>
inline void transform_windows(const Map &map, int from, int to, Workspace &work) {
  constexpr int COUNT = Points<TAPS>::COUNT;
  const long line = (TILE * map.across() + COUNT) * LANES;
  float *columns = sized(work.columns, COUNT * line), *outside = sized(work.edge, line);
  std::memset(outside, 0, line * 4);
  const auto transform = [&](int c, int tile_row, int tile, int count, int at) {
    const Reach<TAPS> reach(map, c, tile_row, tile, count, outside);
    for (int p = 0; p < COUNT; p++) {
      for (int k = 0; k < reach.first; k++) store_vec(columns + p * line + k * LANES, vec{});
      for (int k = reach.last; k < reach.columns; k++)
        store_vec(columns + p * line + k * LANES, vec{});
    }
    for (int k = reach.first; k < reach.last; k++) {
      vec d[COUNT], f[COUNT];
      for (int i = 0; i < COUNT; i++) d[i] = load_vec(reach.rows[i] + reach.start + k * LANES);
      Points<TAPS>::window(d, f);
      for (int p = 0; p < COUNT; p++) store_vec(columns + p * line + k * LANES, f[p]);
    }
    for (int p = 0; p < COUNT; p++)
      for (int t = 0; t < count; t++) {
        vec d[COUNT], f[COUNT];
        for (int i = 0; i < COUNT; i++)
          d[i] = load_vec(columns + p * line + (TILE * t + i) * LANES);
        Points<TAPS>::window(d, f);
        float *to = work.input.at(p * COUNT, c) + (at + t) * LANES;
        for (int q = 0; q < COUNT; q++) store_vec(to + q * work.input.point, f[q]);
      }
  };
  for (int c = 0; c < map.channels; c++)
    each_row_of_tiles(map.across(), from, to, [&](auto... where) { transform(c, where...); });
}

// Adds to the gradient of a map what tiles [from, to) had read of it.
template <int TAPS>
inline void spread_windows(const Map &map, int from, int to, Workspace &work) {
  constexpr int COUNT = Points<TAPS>::COUNT;
  const long line = (TILE * map.across() + COUNT) * LANES;
  float *columns = sized(work.columns, COUNT * line), *outside = sized(work.edge, line);
  const auto transform = [&](int c, int tile_row, int tile, int count, int at) {
    const Reach<TAPS> reach(map, c, tile_row, tile, count, outside);
    for (int p = 0; p < COUNT; p++) {
      vec before[COUNT - TILE] = {};  // of the tile to the left, in columns that both read
      float *to = columns + p * line;
      for (int t = 0; t < count; t++, to += TILE * LANES) {
        const float *from = work.back.at(p * COUNT, c) + (at + t) * LANES;
        vec d[COUNT], f[COUNT];
        for (int q = 0; q < COUNT; q++) f[q] = load_vec(from + q * work.back.point);
        Points<TAPS>::spread(f, d);
        for (int i = 0; i < COUNT - TILE; i++) d[i] += before[i];
        for (int i = 0; i < TILE; i++) store_vec(to + i * LANES, d[i]);
        for (int i = 0; i < COUNT - TILE; i++) before[i] = d[TILE + i];
      }
      for (int i = 0; i < COUNT - TILE; i++) store_vec(to + i * LANES, before[i]);
    }
    for (int k = reach.first; k < reach.last; k++) {
      vec d[COUNT], f[COUNT];
      for (int p = 0; p < COUNT; p++) f[p] = load_vec(columns + p * line + k * LANES);
      Points<TAPS>::spread(f, d);
      for (int i = 0; i < COUNT; i++) {
        float *to = reach.rows[i] + reach.start + k * LANES;
        store_vec(to, load_vec(to) + d[i]);
      }
    }
  };
  for (int c = 0; c < map.channels; c++)
    each_row_of_tiles(map.across(), from, to, [&](auto... where) { transform(c, where...); });
}

// Transforms of the gradients of outputs: get(channel, row of tiles, tile, y) sets y[4, 4].
template <int TAPS, typename Get>
inline void transform_columns(int outputs, int across, int from, int to, const Get &get,
                              Spectrum &s) {
  constexpr int COUNT = Points<TAPS>::COUNT;
  for (int c = 0; c < outputs; c++)
    for (int t = from; t < to; t++) {
      vec y[TILE][TILE], half[COUNT][TILE];
      get(c, t / across, t % across, y);
      for (int j = 0; j < TILE; j++) {
        vec d[TILE], f[COUNT];
        for (int i = 0; i < TILE; i++) d[i] = y[i][j];
        Points<TAPS>::columns(d, f);
        for (int p = 0; p < COUNT; p++) half[p][j] = f[p];
      }
      for (int p = 0; p < COUNT; p++) {
        vec f[COUNT];
        Points<TAPS>::columns(half[p], f);
        float *to_point = s.at(p * COUNT, c) + (t - from) * LANES;
        for (int q = 0; q < COUNT; q++) store_vec(to_point + q * s.point, f[q]);
      }
    }
  for (int c = outputs; c < s.channels; c++)
    for (int i = 0; i < COUNT * COUNT; i++)
      std::memset(s.at(i, c), 0, static_cast<long>(s.tiles) * LANES * 4);
}

// Back to outputs: take(channel, row of tiles, tile, y) gets y[4, 4].
template <int TAPS, typename Take>
inline void transform_outputs(int outputs, int across, int from, int to, Spectrum &s,
                              const Take &take) {
  constexpr int COUNT = Points<TAPS>::COUNT;
  for (int c = 0; c < outputs; c++)
    for (int t = from; t < to; t++) {
      vec y[TILE][TILE], half[TILE][COUNT];
      for (int p = 0; p < COUNT; p++) {
        const float *at = s.at(p * COUNT, c) + (t - from) * LANES;
        vec f[COUNT], d[TILE];
        for (int q = 0; q < COUNT; q++) f[q] = load_vec(at + q * s.point);
        Points<TAPS>::outputs(f, d);
        for (int j = 0; j < TILE; j++) half[j][p] = d[j];
      }
      for (int j = 0; j < TILE; j++) {
        vec d[TILE];
        Points<TAPS>::outputs(half[j], d);
        for (int i = 0; i < TILE; i++) y[i][j] = d[i];
      }
      take(c, t / across, t % across, y);
    }
}

// Not inlined, here and below: there GCC has registers for all sums.
//
// y[GROUP outputs, V vectors] = the sum over channels of kernel[channels, GROUP] times x.
template <int V>
__attribute__((noinline)) void products_at(int channels, const float *x, long step,
                                           const float *kernel, float *y, long y_step) {
  vec sums[GROUP][V];  // not set by braces: GCC would take them through memory
#pragma GCC unroll 8
  for (int o = 0; o < GROUP; o++)
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) sums[o][v] = vec{};
  for (int c = 0; c < channels; c++, x += step, kernel += GROUP) {
    vec read[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) {
      read[v] = load_vec(x + v * LANES);
      keep(read[v]);
    }
#pragma GCC unroll 8
    for (int o = 0; o < GROUP; o++)
#pragma GCC unroll 8
      for (int v = 0; v < V; v++) sums[o][v] += kernel[o] * read[v];
  }
#pragma GCC unroll 8
  for (int o = 0; o < GROUP; o++)
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) store_vec(y + o * y_step + v * LANES, sums[o][v]);
}

// Products at all points; the kernel is [points, outputs / GROUP, inputs, GROUP].
inline void multiply(int points, int inputs, Spectrum &x, const float *kernel, Spectrum &y) {
  constexpr int WIDE = LANES == 16 ? 6 : 3;
  const long step = static_cast<long>(x.tiles) * LANES;
  for (int i = 0; i < points; i++)
    for (int o = 0; o < y.channels; o += GROUP) {
      int t = 0;
      const auto run = [&](auto width) {
        constexpr int V = decltype(width)::value;
        products_at<V>(inputs, x.at(i, 0) + t * LANES, step, kernel, y.at(i, o) + t * LANES, step);
        t += V;
      };
      // Twice two keep the multipliers busier than three and one.
      while (x.tiles - t >= WIDE && x.tiles - t != 4) run(Rows<WIDE>{});
      while (x.tiles - t >= 2) run(Rows<2>{});
      if (x.tiles - t >= 1) run(Rows<1>{});
      kernel += inputs * GROUP;
    }
}

// Adds the sum over the lanes of each of GROUP vectors.
inline void add_sums(const vec *x, float *to) {
#if defined(__AVX2__)
  __m256 a[GROUP];
  for (int o = 0; o < GROUP; o++) {
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
  for (int o = 0; o < GROUP; o++)
    for (int lane = 0; lane < LANES; lane++) to[o] += x[o][lane];
#endif
}

// Sums of K channels of x times GROUP channels of y, added to sum[K, outputs].
template <int K>
__attribute__((noinline)) void correlate_at(int vectors, const float *x, const float *y, long step,
                                            float *sum, long outputs) {
  vec sums[K][GROUP];
#pragma GCC unroll 8
  for (int k = 0; k < K; k++)
#pragma GCC unroll 8
    for (int o = 0; o < GROUP; o++) sums[k][o] = vec{};
  for (int v = 0; v < vectors; v++, x += LANES, y += LANES) {
    vec read[K];
#pragma GCC unroll 8
    for (int k = 0; k < K; k++) {
      read[k] = load_vec(x + k * step);
      keep(read[k]);
    }
#pragma GCC unroll 8
    for (int o = 0; o < GROUP; o++) {
      vec b = load_vec(y + o * step);
      keep(b);
#pragma GCC unroll 8
      for (int k = 0; k < K; k++) sums[k][o] += read[k] * b;
    }
  }
#pragma GCC unroll 8
  for (int k = 0; k < K; k++) add_sums(sums[k], sum + k * outputs);
}

// Adds the gradient of the kernel at all points, [points, inputs, padded(outputs)].
inline void correlate(int points, int inputs, Spectrum &x, Spectrum &y, float *sum) {
  constexpr int MOST = LANES == 16 ? 6 : 3;
  const int N = padded(y.channels);
  const long step = static_cast<long>(x.tiles) * LANES;
  for (int i = 0; i < points; i++)
    for (int c = 0; c < inputs;) {
      const auto run = [&](auto channels) {
        constexpr int K = decltype(channels)::value;
        for (int o = 0; o < y.channels; o += GROUP)
          correlate_at<K>(x.tiles, x.at(i, c), y.at(i, o), step, sum + o, N);
        sum += K * N;
        c += K;
      };
      if (inputs - c >= MOST)
        run(Rows<MOST>{});
      else if (inputs - c >= 2)
        run(Rows<2>{});
      else
        run(Rows<1>{});
    }
}

// x[rows of 8] floats to y[8, rows], of whole 8x8 blocks.
inline void turn_eight(const float *x, long x_step, float *y, long y_step) {
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

// The same with vectors of outputs, which must be brought together for that.
inline void correlate_turned(int points, int inputs, Spectrum &x, Spectrum &y, Workspace &work,
                             float *sum) {
  const int N = padded(y.channels), positions = x.tiles * LANES;
  float *turned = sized(work.turned, static_cast<long>(positions) * N);
  std::memset(turned, 0, static_cast<long>(positions) * N * 4);
  for (int i = 0; i < points; i++) {
    int o = 0;
    for (; o + 8 <= y.channels; o += 8)
      for (int p = 0; p < positions; p += 8)
        turn_eight(y.at(i, o) + p, positions, turned + static_cast<long>(p) * N + o, N);
    for (; o < y.channels; o++)
      for (int p = 0; p < positions; p++) turned[static_cast<long>(p) * N + o] = y.at(i, o)[p];
    for (int j = 0; j < N; j += PANEL)
      rows_of_panel(inputs, positions, x.at(i, 0), positions, 1, turned + j, N, sum + j, N, sum + j,
                    N);
    sum += static_cast<long>(inputs) * N;
  }
}

// Whether so few vectors are added up at once that their lanes should not be.
inline bool better_turned(int vectors, int inputs, int outputs) {
  const int sums = inputs * grouped(outputs) * (vectors + 4);
  const int turned = inputs * padded(outputs) * vectors + 2 * outputs * vectors;
  return turned < sums;
}

// Tiles that are in work at once: their transforms fit beside other things into the second cache.
inline int tiles_at_once(int points, int channels, int count) {
  constexpr int VECTORS = 10 << 10, LEAST = 4;
  const int fit = VECTORS / (points * channels), most = fit < LEAST ? LEAST : fit;
  const int parts = (count + most - 1) / most;
  return (count + parts - 1) / parts;
}

// Convolution of a map; take(channel, row of tiles, tile, y) gets the outputs, 4x4 at a time, also
// those beyond the map.
template <int TAPS, typename Take>
inline void convolve(const Map &map, int outputs, const float *kernel, const Take &take,
                     Workspace &work) {
  constexpr int POINTS = Points<TAPS>::COUNT * Points<TAPS>::COUNT;
  const int filled = grouped(outputs), count = map.tile_count(), across = map.across();
  const int step = tiles_at_once(POINTS, map.channels + filled, count);
  for (int from = 0; from < count; from += step) {
    const int to = from + step < count ? from + step : count;
    work.input.shape(POINTS, map.channels, to - from);
    work.output.shape(POINTS, filled, to - from);
    transform_windows<TAPS>(map, from, to, work);
    multiply(POINTS, map.channels, work.input, kernel, work.output);
    transform_outputs<TAPS>(outputs, across, from, to, work.output, take);
  }
}

// Adds to the gradient of the transformed kernel; get(channel, row of tiles, tile, y) sets the
// gradient of the outputs, zeros beyond the map. If there is a `turned` kernel, dinput becomes
// dL/dinput.
template <int TAPS, typename Get>
inline void convolve_backward(const Map &map, int outputs, const float *turned, const Get &get,
                              float *dkernel, float *dinput, Workspace &work) {
  constexpr int POINTS = Points<TAPS>::COUNT * Points<TAPS>::COUNT;
  const int filled = grouped(outputs), back = turned ? grouped(map.channels) : 0;
  const int count = map.tile_count(), across = map.across();
  const int step = tiles_at_once(POINTS, map.channels + filled + back, count);
  const Map gradient{map.channels, map.height, map.width, dinput};
  if (turned) std::memset(dinput, 0, map.channels * map.plane() * 4);
  for (int from = 0; from < count; from += step) {
    const int to = from + step < count ? from + step : count;
    work.input.shape(POINTS, map.channels, to - from);
    work.output.shape(POINTS, filled, to - from);
    transform_windows<TAPS>(map, from, to, work);
    transform_columns<TAPS>(outputs, across, from, to, get, work.output);
    if (better_turned(to - from, map.channels, outputs))
      correlate_turned(POINTS, map.channels, work.input, work.output, work, dkernel);
    else
      correlate(POINTS, map.channels, work.input, work.output, dkernel);
    if (!turned) continue;
    work.back.shape(POINTS, back, to - from);
    multiply(POINTS, outputs, work.output, turned, work.back);
    spread_windows<TAPS>(gradient, from, to, work);
  }
}

}  // namespace
