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

// Transforms of some tiles, [blocks, points, channels, tiles of a block] vectors.
struct Spectrum {
  int points = 0, channels = 0, tiles = 0, block = 0;
  long point = 0;  // floats from one point to the next
  float *first = nullptr;
  std::vector<float> memory;

  void shape(int of_points, int of_channels, int of_tiles, int of_block) {
    points = of_points;
    channels = of_channels;
    tiles = of_tiles;
    block = of_block;
    point = spread(static_cast<long>(channels) * block * LANES);
    float *begin = sized(memory, (tiles + block - 1) / block * points * point + 16);
    first = begin + (-reinterpret_cast<intptr_t>(begin) / 4 & 15);  // of a line
  }

  float *at(int channel, int tile) {
    return first + tile / block * points * point +
           (static_cast<long>(channel) * block + tile % block) * LANES;
  }
};

// Products of GROUP channels, [GROUP, tiles, points] vectors.
struct Products {
  int tiles = 0;
  long tile = 0, channel = 0;  // floats from one to the next
  float *first = nullptr;
  std::vector<float> memory;

  void shape(int points, int of_tiles) {
    tiles = of_tiles;
    tile = spread(static_cast<long>(points) * LANES);
    channel = tiles * tile;
    float *begin = sized(memory, GROUP * channel + 16);
    first = begin + (-reinterpret_cast<intptr_t>(begin) / 4 & 15);
  }

  float *at(int of_channel, int of_tile) { return first + of_channel * channel + of_tile * tile; }
};

// Memory of a thread for convolutions.
struct Workspace {
  Spectrum input, output;
  Products products;
  std::vector<float> columns, edge, beyond, turned;
};

// A map, or where one goes. Few images are cut in strips of rows, which take lanes of their own: what
// lies above the rows of a lane is in the lane before, unless that is the end of another image.
struct Map {
  int channels, height, width;
  float *x;
  int strips = 1;

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

// Rows of other strips around those of each strip: [TAPS / 2 above and as many below, width].
template <int TAPS>
inline float *rows_beyond(const Map &map, int channel, std::vector<float> &memory) {
  constexpr int HALF = TAPS / 2;
  const long line = static_cast<long>(map.width) * LANES;
  float *rows = sized(memory, 2 * HALF * line);
  for (int i = 0; i < HALF; i++) {
    const float *last = map.row(channel, map.height - HALF + i), *first = map.row(channel, i);
    float *above = rows + i * line, *below = rows + (HALF + i) * line;
    for (int x = 0; x < line; x++) {
      const int strip = x % LANES % map.strips;
      above[x] = strip == 0 ? 0.0f : last[x - 1];
      below[x] = strip == map.strips - 1 || x + 1 == line ? 0.0f : first[x + 1];
    }
  }
  return rows;
}

// What a row of tiles reads or adds to: `COUNT` rows, those outside of the map elsewhere; and which
// of its columns are in the map.
template <int TAPS>
struct Reach {
  static constexpr int COUNT = Points<TAPS>::COUNT, HALF = TAPS / 2;
  float *rows[COUNT];
  int columns, first, last;  // all columns; those in the map
  long start;                // floats from column 0 to the first of all

  Reach(const Map &map, int channel, int tile_row, int tile, int count, float *outside,
        float *beyond = nullptr) {
    const int column = TILE * tile - HALF;
    for (int i = 0; i < COUNT; i++) {
      const int row = TILE * tile_row - HALF + i;
      const int other = row < 0 ? row + HALF : row - map.height + HALF;  // of those beyond
      if (row >= 0 && row < map.height)
        rows[i] = map.row(channel, row);
      else if (beyond && other < 2 * HALF)
        rows[i] = beyond + static_cast<long>(other) * map.width * LANES;
      else
        rows[i] = outside;
    }
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
  const auto transform = [&](int c, float *beyond, int tile_row, int tile, int count, int at) {
    const Reach<TAPS> reach(map, c, tile_row, tile, count, outside, beyond);
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
        float *to = work.input.at(c, at + t) + p * COUNT * work.input.point;
        for (int q = 0; q < COUNT; q++) store_vec(to + q * work.input.point, f[q]);
      }
  };
  for (int c = 0; c < map.channels; c++) {
    float *beyond = map.strips > 1 ? rows_beyond<TAPS>(map, c, work.beyond) : nullptr;
    each_row_of_tiles(map.across(), from, to,
                      [&](auto... where) { transform(c, beyond, where...); });
  }
}

// Adds to a channel of the gradient of a map what tiles [from, to) had read of it.
template <int TAPS>
inline void spread_windows(const Map &map, int c, int from, int to, const float *products,
                           long step, Workspace &work) {
  constexpr int COUNT = Points<TAPS>::COUNT;
  const long line = (TILE * map.across() + COUNT) * LANES;
  float *columns = sized(work.columns, COUNT * line), *outside = sized(work.edge, line);
  each_row_of_tiles(map.across(), from, to, [&](int tile_row, int tile, int count, int at) {
    const Reach<TAPS> reach(map, c, tile_row, tile, count, outside);
    for (int p = 0; p < COUNT; p++) {
      vec before[COUNT - TILE] = {};  // of the tile to the left, in columns that both read
      float *to = columns + p * line;
      for (int t = 0; t < count; t++, to += TILE * LANES) {
        const float *from = products + (at + t) * step + p * COUNT * LANES;
        vec d[COUNT], f[COUNT];
        for (int q = 0; q < COUNT; q++) f[q] = load_vec(from + q * LANES);
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
  });
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
        float *to_point = s.at(c, t - from) + p * COUNT * s.point;
        for (int q = 0; q < COUNT; q++) store_vec(to_point + q * s.point, f[q]);
      }
    }
  for (int c = outputs; c < s.channels; c++)
    for (int t = 0; t < to - from; t++)
      for (int i = 0; i < COUNT * COUNT; i++) store_vec(s.at(c, t) + i * s.point, vec{});
}

// One channel of some tiles back to outputs: take(channel, row of tiles, tile, y) gets y[4, 4].
template <int TAPS, typename Take>
inline void transform_outputs(int c, int across, int from, int to, const float *products, long step,
                              const Take &take) {
  constexpr int COUNT = Points<TAPS>::COUNT;
  for (int t = from; t < to; t++, products += step) {
    vec y[TILE][TILE], half[TILE][COUNT];
    for (int p = 0; p < COUNT; p++) {
      vec f[COUNT], d[TILE];
      for (int q = 0; q < COUNT; q++) f[q] = load_vec(products + (p * COUNT + q) * LANES);
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
// y[GROUP outputs, V tiles, points] = the sums over channels of kernel[points, channels, GROUP] times
// x[points, channels, V tiles].
template <int V>
__attribute__((noinline)) void products_at(int points, int channels, const float *x, long x_point,
                                           long x_channel, const float *kernel, float *y,
                                           long y_tile, long y_channel) {
  for (int i = 0; i < points; i++, x += x_point, y += LANES) {
    vec sums[GROUP][V];  // not set by braces: GCC would take them through memory
#pragma GCC unroll 8
    for (int o = 0; o < GROUP; o++)
#pragma GCC unroll 8
      for (int v = 0; v < V; v++) sums[o][v] = vec{};
    for (int c = 0; c < channels; c++, kernel += GROUP) {
      vec read[V];
#pragma GCC unroll 8
      for (int v = 0; v < V; v++) {
        read[v] = load_vec(x + c * x_channel + v * LANES);
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
      for (int v = 0; v < V; v++) store_vec(y + o * y_channel + v * y_tile, sums[o][v]);
  }
}

constexpr int BLOCK = LANES == 16 ? 6 : 3;  // tiles whose sums are in registers at once

// Products of GROUP outputs at all points; the kernel is [points, inputs, GROUP].
inline void multiply(int inputs, Spectrum &x, const float *kernel, Products &y) {
  const long x_channel = static_cast<long>(x.block) * LANES;
  int t = 0;
  const auto run = [&](auto width) {
    constexpr int V = decltype(width)::value;
    products_at<V>(x.points, inputs, x.at(0, t), x.point, x_channel, kernel, y.at(0, t), y.tile,
                   y.channel);
    t += V;
  };
  while (x.tiles - t >= BLOCK) run(Rows<BLOCK>{});
  if (x.tiles - t >= 4) run(Rows<4>{});
  while (x.tiles - t >= 2) run(Rows<2>{});
  if (x.tiles - t >= 1) run(Rows<1>{});
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

// Sums of K channels of x times `GROUPS` of GROUP channels of y, added to sum[K, outputs].
template <int K, int GROUPS>
__attribute__((noinline)) void correlate_at(int tiles, const float *x, long x_channel,
                                            const float *y, long y_block, float *sum,
                                            long outputs) {
  constexpr int OUTPUTS = GROUPS * GROUP;
  vec sums[K][OUTPUTS];
#pragma GCC unroll 8
  for (int k = 0; k < K; k++)
#pragma GCC unroll 8
    for (int o = 0; o < OUTPUTS; o++) sums[k][o] = vec{};
  for (int from = 0; from < tiles; from += BLOCK, y += y_block) {
    const int count = tiles - from < BLOCK ? tiles - from : BLOCK;
    for (int v = 0; v < count; v++, x += LANES) {
      vec read[K];
#pragma GCC unroll 8
      for (int k = 0; k < K; k++) {
        read[k] = load_vec(x + k * x_channel);
        keep(read[k]);
      }
#pragma GCC unroll 8
      for (int o = 0; o < OUTPUTS; o++) {
        vec b = load_vec(y + (v + o * BLOCK) * LANES);
        keep(b);
#pragma GCC unroll 8
        for (int k = 0; k < K; k++) sums[k][o] += read[k] * b;
      }
    }
  }
#pragma GCC unroll 8
  for (int k = 0; k < K; k++)
#pragma GCC unroll 8
    for (int o = 0; o < OUTPUTS; o += GROUP) add_sums(sums[k] + o, sum + k * outputs + o);
}

// Adds the gradient of the kernel at all points, [points, inputs, padded(outputs)]; x lies in one
// block, y in those of BLOCK tiles.
inline void correlate(int inputs, Spectrum &x, Spectrum &y, float *sum) {
  constexpr int MOST = LANES == 16 ? 6 : 3;
  const int N = padded(y.channels);
  const long x_channel = static_cast<long>(x.block) * LANES, y_block = y.points * y.point;
  for (int i = 0; i < x.points; i++)
    for (int c = 0; c < inputs;) {
      int o = 0;
      const auto run = [&](auto channels, auto groups) {
        constexpr int K = decltype(channels)::value, GROUPS = decltype(groups)::value;
        for (; o + GROUPS * GROUP <= y.channels; o += GROUPS * GROUP)
          correlate_at<K, GROUPS>(x.tiles, x.at(c, 0) + i * x.point, x_channel,
                                  y.at(o, 0) + i * y.point, y_block, sum + o, N);
        return K;
      };
      int done;
      if (inputs - c >= MOST) {
        done = run(Rows<MOST>{}, Rows<1>{});
      } else if (inputs - c >= 2) {
        done = run(Rows<2>{}, Rows<1>{});
      } else {  // two groups, so that there are sums enough to hide how long one takes
        run(Rows<1>{}, Rows<2>{});
        done = run(Rows<1>{}, Rows<1>{});
      }
      sum += done * N;
      c += done;
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
inline void correlate_turned(int inputs, Spectrum &x, Spectrum &y, Workspace &work, float *sum) {
  const int N = padded(y.channels), positions = x.tiles * LANES;
  float *turned = sized(work.turned, static_cast<long>(positions) * N);
  std::memset(turned, 0, static_cast<long>(positions) * N * 4);
  for (int i = 0; i < x.points; i++) {
    for (int t = 0; t < y.tiles; t++) {
      const float *from = y.at(0, t) + i * y.point;
      float *to = turned + static_cast<long>(t) * LANES * N;
      int o = 0;
      for (; o + 8 <= y.channels; o += 8)
        for (int l = 0; l < LANES; l += 8)
          turn_eight(from + o * BLOCK * LANES + l, BLOCK * LANES, to + static_cast<long>(l) * N + o,
                     N);
      for (; o < y.channels; o++)
        for (int l = 0; l < LANES; l++)
          to[static_cast<long>(l) * N + o] = from[o * BLOCK * LANES + l];
    }
    for (int j = 0; j < N; j += PANEL)
      rows_of_panel(inputs, positions, x.at(0, 0) + i * x.point, positions, 1, turned + j, N,
                    sum + j, N, sum + j, N);
    sum += static_cast<long>(inputs) * N;
  }
}

// Whether so few vectors are added up at once that their lanes should not be.
inline bool better_turned(int vectors, int inputs, int outputs) {
  const int sums = inputs * grouped(outputs) * (vectors + 4);
  const int turned = inputs * padded(outputs) * vectors + 2 * outputs * vectors;
  return turned < sums;
}

// Tiles that are in work at once, a multiple of BLOCK. Forward their transforms stay in the second
// cache; backward, sums over more of them pay for a longer way.
constexpr int VECTORS = 10 << 10, VECTORS_BACKWARD = 24 << 10;

inline int tiles_at_once(int vectors, int points, int channels, int count) {
  constexpr int LEAST = 6;
  const int fit = vectors / (points * channels), most = fit < LEAST ? LEAST : fit;
  const int parts = (count + most - 1) / most, even = (count + parts - 1) / parts;
  return (even + BLOCK - 1) / BLOCK * BLOCK;
}

// Convolution of a map; take(channel, row of tiles, tile, y) gets the outputs, 4x4 at a time, also
// those beyond the map.
template <int TAPS, typename Take>
inline void convolve(const Map &map, int outputs, const float *kernel, const Take &take,
                     Workspace &work) {
  constexpr int POINTS = Points<TAPS>::COUNT * Points<TAPS>::COUNT;
  const int count = map.tile_count(), across = map.across();
  const int step = tiles_at_once(VECTORS, POINTS, map.channels + GROUP, count);
  for (int from = 0; from < count; from += step) {
    const int to = from + step < count ? from + step : count;
    work.input.shape(POINTS, map.channels, to - from, BLOCK);
    work.products.shape(POINTS, to - from);
    transform_windows<TAPS>(map, from, to, work);
    for (int o = 0; o < outputs; o += GROUP) {
      multiply(map.channels, work.input, kernel + static_cast<long>(o) * POINTS * map.channels,
               work.products);
      for (int c = o; c < o + GROUP && c < outputs; c++)
        transform_outputs<TAPS>(c, across, from, to, work.products.at(c - o, 0),
                                work.products.tile, take);
    }
  }
}

// Adds to the gradient of the transformed kernel; get(channel, row of tiles, tile, y) sets the
// gradient of the outputs, zeros beyond the map. If there is a `turned` kernel, dinput becomes
// dL/dinput.
template <int TAPS, typename Get>
inline void convolve_backward(const Map &map, int outputs, const float *turned, const Get &get,
                              float *dkernel, float *dinput, Workspace &work) {
  constexpr int POINTS = Points<TAPS>::COUNT * Points<TAPS>::COUNT;
  const int C = map.channels, count = map.tile_count(), across = map.across();
  const int step =
      tiles_at_once(VECTORS_BACKWARD, POINTS, C + grouped(outputs) + GROUP, count);
  const Map gradient{C, map.height, map.width, dinput};
  if (turned) std::memset(dinput, 0, C * map.plane() * 4);
  for (int from = 0; from < count; from += step) {
    const int to = from + step < count ? from + step : count;
    work.input.shape(POINTS, C, to - from, to - from);
    work.output.shape(POINTS, grouped(outputs), to - from, BLOCK);
    transform_windows<TAPS>(map, from, to, work);
    transform_columns<TAPS>(outputs, across, from, to, get, work.output);
    if (better_turned(to - from, C, outputs))
      correlate_turned(C, work.input, work.output, work, dkernel);
    else
      correlate(C, work.input, work.output, dkernel);
    if (!turned) continue;
    work.products.shape(POINTS, to - from);
    for (int o = 0; o < C; o += GROUP) {
      multiply(outputs, work.output, turned + static_cast<long>(o) * POINTS * outputs,
               work.products);
      for (int c = o; c < o + GROUP && c < C; c++)
        spread_windows<TAPS>(gradient, c, from, to, work.products.at(c - o, 0), work.products.tile,
                             work);
    }
  }
}

}  // namespace
