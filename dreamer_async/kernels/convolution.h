// Convolutions of planes with 3x3 or 5x5 kernels, stride 1 and zero padding, with fewer products.
//
// Along a row, four outputs of `taps` taps each take `taps` + 3 products instead of 4 `taps`
// (Winograd; Toom and Cook): values of polynomials are multiplied at `taps` + 3 points, 0, 1, -1,
// 2, -2, (1/2, -1/2) and infinity. In float32 the error grows from 3e-7 to 6e-7 of the result.
// Across rows and channels the products are summed before going back, so the way there and back is
// paid once per row.
//
// A map is planes [channels, area] with the rows of an image one after the other and zeros up to
// the next multiple of 16 floats. A row of W columns is cut in T tiles of four; a transform of rows
// has one plane per point and channel, [rows, T].

#pragma once

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <vector>

#include "arithmetic.h"

namespace {

constexpr int TILE_COLUMNS = 4;
constexpr int GROUP = 4;  // outputs whose kernels lie side by side

inline int tiles(int width) { return (width + TILE_COLUMNS - 1) / TILE_COLUMNS; }
inline int grouped(int outputs) { return (outputs + GROUP - 1) / GROUP * GROUP; }
inline long plane_area(int height, int width) {
  return (static_cast<long>(height) * width + 15) / 16 * 16;
}

// The three transforms of a tile: `window` of the columns that it reads, `outputs` back to its four
// columns, and `columns` of four columns for the gradient of the kernel.
template <int TAPS>
struct Points;

template <>
struct Points<3> {
  static constexpr int COUNT = 6;

  static inline void window(const vec *d, vec *f) {
    const vec a = d[4] - 4.0f * d[2], b = d[3] - 4.0f * d[1];
    const vec c = d[4] - d[2], e = 2.0f * (d[3] - d[1]);
    f[0] = 4.0f * d[0] - 5.0f * d[2] + d[4];
    f[1] = a + b;
    f[2] = a - b;
    f[3] = c + e;
    f[4] = c - e;
    f[5] = 4.0f * d[1] - 5.0f * d[3] + d[5];
  }

  static inline void outputs(const vec *f, vec *y) {
    const vec a = f[1] + f[2], b = f[1] - f[2], c = f[3] + f[4], e = f[3] - f[4];
    y[0] = f[0] + a + c;
    y[1] = b + 2.0f * e;
    y[2] = a + 4.0f * c;
    y[3] = b + 8.0f * e + f[5];
  }

  static inline void columns(const vec *y, vec *f) {
    const vec a = y[0] + y[2], b = y[1] + y[3];
    const vec c = y[0] + 4.0f * y[2], e = 2.0f * y[1] + 8.0f * y[3];
    f[0] = y[0];
    f[1] = a + b;
    f[2] = a - b;
    f[3] = c + e;
    f[4] = c - e;
    f[5] = y[3];
  }
};

template <>
struct Points<5> {
  static constexpr int COUNT = 8;

  static inline void window(const vec *d, vec *f) {
    const vec a = d[2] + d[6] - 4.25f * d[4], b = d[1] + d[5] - 4.25f * d[3];
    const vec c = d[6] + 0.25f * d[2] - 1.25f * d[4], e = 0.5f * d[1] - 2.5f * d[3] + 2.0f * d[5];
    const vec g = d[6] + 4.0f * d[2] - 5.0f * d[4], h = 2.0f * d[1] - 2.5f * d[3] + 0.5f * d[5];
    f[0] = d[0] - d[6] + 5.25f * (d[4] - d[2]);
    f[1] = a + b;
    f[2] = a - b;
    f[3] = c + e;
    f[4] = c - e;
    f[5] = g + h;
    f[6] = g - h;
    f[7] = d[7] - d[1] + 5.25f * (d[3] - d[5]);
  }

  static inline void outputs(const vec *f, vec *y) {
    const vec a = f[1] + f[2], b = f[1] - f[2], c = f[3] + f[4], e = f[3] - f[4];
    const vec g = f[5] + f[6], h = f[5] - f[6];
    y[0] = f[0] + a + c + 8.0f * g;
    y[1] = b + 2.0f * e + 4.0f * h;
    y[2] = a + 4.0f * c + 2.0f * g;
    y[3] = b + 8.0f * e + h + f[7];
  }

  static inline void columns(const vec *y, vec *f) {
    const vec a = y[0] + y[2], b = y[1] + y[3];
    const vec c = y[0] + 4.0f * y[2], e = 2.0f * y[1] + 8.0f * y[3];
    const vec g = 8.0f * y[0] + 2.0f * y[2], h = 4.0f * y[1] + y[3];
    f[0] = y[0];
    f[1] = a + b;
    f[2] = a - b;
    f[3] = c + e;
    f[4] = c - e;
    f[5] = g + h;
    f[6] = g - h;
    f[7] = y[3];
  }
};

// Transforms of some rows of a map, or what is to be transformed back.
struct Spectrum {
  int channels = 0, tiles = 0;
  long plane = 0;
  float *first = nullptr;
  std::vector<float> memory;

  void shape(int points, int of_channels, int rows, int of_tiles) {
    channels = of_channels;
    tiles = of_tiles;
    // A vector may begin at the last number; planes begin in all sets of the first cache in turn.
    plane = spread(static_cast<long>(rows) * tiles + 2 * LANES);
    const size_t size = static_cast<size_t>(points) * channels * plane + 16;
    if (memory.size() < size) memory.resize(size);
    first = memory.data() + (-reinterpret_cast<intptr_t>(memory.data()) / 4 & 15);  // of a line
  }

  float *at(int point, int channel) {
    return first + (static_cast<long>(point) * channels + channel) * plane;
  }
};

#if defined(__AVX2__)
// 4x4 numbers in either half of four vectors change places.
inline void transpose(__m256 *x) {
  const __m256 a = _mm256_unpacklo_ps(x[0], x[1]), b = _mm256_unpackhi_ps(x[0], x[1]);
  const __m256 c = _mm256_unpacklo_ps(x[2], x[3]), d = _mm256_unpackhi_ps(x[2], x[3]);
  x[0] = _mm256_shuffle_ps(a, c, 0x44);
  x[1] = _mm256_shuffle_ps(a, c, 0xee);
  x[2] = _mm256_shuffle_ps(b, d, 0x44);
  x[3] = _mm256_shuffle_ps(b, d, 0xee);
}
#endif

// A row by columns modulo four, [4, line], with a tile of zeros on either side. Whole vectors are
// read and written: rows must lie in front of OVERRUN other floats.
constexpr int OVERRUN = 32;

struct Phases {
  int width = 0, count = 0;
  long line = 0;
  std::vector<float> memory;

  void shape(int of_width) {
    if (width == of_width) return;
    width = of_width;
    count = tiles(width);
    line = count + 2 + 2 * LANES;
    memory.assign(TILE_COLUMNS * line, 0.0f);
  }

  float *of(int phase) { return memory.data() + phase * line + 1; }

  // Zeros behind the row again.
  void end() {
    for (int i = width; i < TILE_COLUMNS * count; i++) of(i % TILE_COLUMNS)[count - 1] = 0.0f;
    for (int i = 0; i < TILE_COLUMNS; i++) store_vec(of(i) + count, vec{});
  }

  void clear() { memory.assign(memory.size(), 0.0f); }

  void split(const float *row) {
    for (int t = 0; t < count; t += 8) {
      const float *from = row + TILE_COLUMNS * t;
#if defined(__AVX2__)
      __m256 x[4];
      for (int i = 0; i < 4; i++)
        x[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from + 4 * i)),
                                    _mm_loadu_ps(from + 4 * i + 16), 1);
      transpose(x);
      for (int i = 0; i < 4; i++) _mm256_storeu_ps(of(i) + t, x[i]);
#else
      for (int i = 0; i < 4; i++)
        for (int k = 0; k < 8; k++) of(i)[t + k] = from[4 * k + i];
#endif
    }
    end();
  }

  void join(float *row) {
    for (int t = 0; t < count; t += 8) {
      float *to = row + TILE_COLUMNS * t;
#if defined(__AVX2__)
      __m256 x[4];
      for (int i = 0; i < 4; i++) x[i] = _mm256_loadu_ps(of(i) + t);
      transpose(x);
      for (int i = 0; i < 4; i++) {
        _mm_storeu_ps(to + 4 * i, _mm256_castps256_ps128(x[i]));
        _mm_storeu_ps(to + 4 * i + 16, _mm256_extractf128_ps(x[i], 1));
      }
#else
      for (int i = 0; i < 4; i++)
        for (int k = 0; k < 8; k++) to[4 * k + i] = of(i)[t + k];
#endif
    }
  }
};

// Rows [from, to) of a map of `height` rows, transformed; rows outside of it are zero.
// source(channel, row, phases) puts a row there.
template <int POINTS, typename Transform, typename Source>
inline void transform_rows(int height, int from, int to, const Source &source,
                           const Transform &transform, Phases &phases, Spectrum &to_be) {
  const int T = to_be.tiles;
  const long used = static_cast<long>(to - from) * T;
  for (int c = 0; c < to_be.channels; c++) {
    for (int row = from; row < to; row++) {
      float *first = to_be.at(0, c) + static_cast<long>(row - from) * T;
      const long step = to_be.channels * to_be.plane;
      // The last vector of a row reaches into the next row, which is written after it.
      if (row < 0 || row >= height) {
        for (int i = 0; i < POINTS; i++)
          for (int t = 0; t < T; t += LANES) store_vec(first + i * step + t, vec{});
        continue;
      }
      source(c, row, phases);
      for (int t = 0; t < T; t += LANES) transform(phases, t, first + t, step);
    }
    for (int i = 0; i < POINTS; i++) store_vec(to_be.at(i, c) + used, vec{});
  }
}

template <int TAPS>
struct Window {
  void operator()(Phases &phases, int t, float *to, long step) const {
    constexpr int COUNT = Points<TAPS>::COUNT, HALF = TAPS / 2;
    vec d[COUNT], f[COUNT];
    for (int j = 0; j < COUNT; j++) {
      const int column = j - HALF + TILE_COLUMNS;  // seen from the tile before
      d[j] = load_vec(phases.of(column % TILE_COLUMNS) + t + column / TILE_COLUMNS - 1);
    }
    Points<TAPS>::window(d, f);
    for (int i = 0; i < COUNT; i++) store_vec(to + i * step, f[i]);
  }
};

template <int TAPS>
struct Columns {
  void operator()(Phases &phases, int t, float *to, long step) const {
    constexpr int COUNT = Points<TAPS>::COUNT;
    vec y[TILE_COLUMNS], f[COUNT];
    for (int j = 0; j < TILE_COLUMNS; j++) y[j] = load_vec(phases.of(j) + t);
    Points<TAPS>::columns(y, f);
    for (int i = 0; i < COUNT; i++) store_vec(to + i * step, f[i]);
  }
};

// Not inlined, here and below: there GCC has registers for all sums.
//
// y[GROUP outputs, V vectors] = the sum over channels and rows of kernels times x.
template <int TAPS, int V>
__attribute__((noinline)) void products_at(int channels, const float *x, long plane, int T, const float *kernel,
                        float *y, long y_plane) {
  vec sums[GROUP][V];  // not set by braces: GCC would take them through memory
#pragma GCC unroll 8
  for (int o = 0; o < GROUP; o++)
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) sums[o][v] = vec{};
  for (int c = 0; c < channels; c++) {
#pragma GCC unroll 5
    for (int row = 0; row < TAPS; row++) {
      vec read[V];
#pragma GCC unroll 8
      for (int v = 0; v < V; v++) {
        read[v] = load_vec(x + c * plane + row * T + v * LANES);
        keep(read[v]);
      }
#pragma GCC unroll 8
      for (int o = 0; o < GROUP; o++)
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) sums[o][v] += kernel[o] * read[v];
      kernel += GROUP;
    }
  }
#pragma GCC unroll 8
  for (int o = 0; o < GROUP; o++)
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) store_vec(y + o * y_plane + v * LANES, sums[o][v]);
}

// Products of `rows` rows; the kernel is [points, outputs / GROUP, channels, TAPS, GROUP].
template <int TAPS>
inline void multiply(int rows, Spectrum &x, const float *kernel, Spectrum &y) {
  constexpr int WIDE = LANES == 16 ? 6 : 3;
  const int T = x.tiles;
  const int vectors = (rows * T + LANES - 1) / LANES;
  for (int i = 0; i < Points<TAPS>::COUNT; i++)
    for (int o = 0; o < y.channels; o += GROUP) {
      const float *from = x.at(i, 0);
      float *to = y.at(i, o);
      int v = 0;
      for (; v + WIDE <= vectors; v += WIDE)
        products_at<TAPS, WIDE>(x.channels, from + v * LANES, x.plane, T, kernel, to + v * LANES,
                                y.plane);
      for (; v + 2 <= vectors; v += 2)
        products_at<TAPS, 2>(x.channels, from + v * LANES, x.plane, T, kernel, to + v * LANES,
                             y.plane);
      for (; v < vectors; v++)
        products_at<TAPS, 1>(x.channels, from + v * LANES, x.plane, T, kernel, to + v * LANES,
                             y.plane);
      kernel += x.channels * TAPS * GROUP;
    }
}

// Adds the sum over the lanes of each of GROUP vectors.
inline void add_sums(const vec *x, float *to) {
#if defined(__AVX2__)
  __m256 a[GROUP];
  for (int o = 0; o < GROUP; o++) {
#if defined(__AVX512F__)
    const __m512 all = (__m512)x[o];
    a[o] = _mm256_add_ps(_mm512_castps512_ps256(all),
                         _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(all), 1)));
#else
    a[o] = (__m256)x[o];
#endif
  }
  const __m256 sums = _mm256_hadd_ps(_mm256_hadd_ps(a[0], a[1]), _mm256_hadd_ps(a[2], a[3]));
  const __m128 both = _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
  _mm_storeu_ps(to, _mm_add_ps(_mm_loadu_ps(to), both));
#else
  for (int o = 0; o < GROUP; o++)
    for (int lane = 0; lane < LANES; lane++) to[o] += x[o][lane];
#endif
}

// Sums over a plane of K rows of x, which begin at `from`, times GROUP rows of y, added to
// sum[K, outputs].
template <int K>
__attribute__((noinline)) void correlate_at(int vectors, const float *const *from, const float *y, long y_plane,
                         float *sum, long outputs) {
  vec sums[K][GROUP];
#pragma GCC unroll 8
  for (int k = 0; k < K; k++)
#pragma GCC unroll 8
    for (int o = 0; o < GROUP; o++) sums[k][o] = vec{};
  for (int v = 0; v < vectors; v++) {
    vec read[K];
#pragma GCC unroll 8
    for (int k = 0; k < K; k++) {
      read[k] = load_vec(from[k] + v * LANES);
      keep(read[k]);
    }
#pragma GCC unroll 8
    for (int o = 0; o < GROUP; o++) {
      vec b = load_vec(y + o * y_plane + v * LANES);
      keep(b);
#pragma GCC unroll 8
      for (int k = 0; k < K; k++) sums[k][o] += read[k] * b;
    }
  }
#pragma GCC unroll 8
  for (int k = 0; k < K; k++) add_sums(sums[k], sum + k * outputs);
}

// Adds the gradient of the transformed kernel, [points, channels, TAPS, outputs].
template <int TAPS>
inline void correlate(int rows, Spectrum &x, Spectrum &y, float *sum) {
  constexpr int MOST = LANES == 16 ? 6 : 3;
  const int T = x.tiles, K = x.channels * TAPS;
  const int vectors = (rows * T + LANES - 1) / LANES;
  for (int i = 0; i < Points<TAPS>::COUNT; i++) {
    const float *from[MOST];
    for (int k = 0; k < K; k += MOST) {
      const int count = K - k < MOST ? K - k : MOST;
      for (int j = 0; j < count; j++) from[j] = x.at(i, (k + j) / TAPS) + (k + j) % TAPS * T;
      for (int o = 0; o < y.channels; o += GROUP) {
        float *to = sum + static_cast<long>(k) * y.channels + o;
        const auto run = [&](auto rows_of_x, int at) {
          correlate_at<decltype(rows_of_x)::value>(vectors, from + at, y.at(i, o), y.plane,
                                                   to + static_cast<long>(at) * y.channels,
                                                   y.channels);
        };
        int at = 0;
        if (count == MOST) {
          run(Rows<MOST>{}, 0);
          continue;
        }
        for (; at + 3 <= count; at += 3) run(Rows<3>{}, at);
        for (; at + 2 <= count; at += 2) run(Rows<2>{}, at);
        for (; at < count; at++) run(Rows<1>{}, at);
      }
    }
    sum += static_cast<long>(K) * y.channels;
  }
}

// Memory of a thread for convolutions.
struct Workspace {
  Spectrum input, output;
  Phases phases, results[2];  // what is transformed, and what comes back
};

// Rows of a band: an even number whose transforms fit beside other things into the second cache.
inline int band_rows(int points, int channels, int height, int width) {
  constexpr long BUDGET = 48 << 10;  // floats
  const long per_row = static_cast<long>(points) * channels * tiles(width);
  const long rows = BUDGET / per_row / 2 * 2;
  return static_cast<int>(rows < 4 ? 4 : rows < height ? rows : height);
}

// A row of the result out of its transform.
template <int TAPS>
inline void row_of_outputs(Spectrum &from, int channel, int row, Phases &to) {
  constexpr int COUNT = Points<TAPS>::COUNT;
  const float *at = from.at(0, channel) + static_cast<long>(row) * from.tiles;
  const long step = from.channels * from.plane;
  for (int t = 0; t < from.tiles; t += LANES) {
    vec f[COUNT], y[TILE_COLUMNS];
    for (int i = 0; i < COUNT; i++) f[i] = load_vec(at + i * step + t);
    Points<TAPS>::outputs(f, y);
    for (int j = 0; j < TILE_COLUMNS; j++) store_vec(to.of(j) + t, y[j]);
  }
}

// Convolution of a map of `height` x `width`, in bands of an even number of rows.
// source(channel, row, phases) puts a row there; take(from, to) is told when work.output holds the
// transforms of rows [from, to) of the result.
template <int TAPS, typename Source, typename Take>
inline void convolve(int inputs, int outputs, int height, int width, const float *kernel,
                     const Source &source, const Take &take, Workspace &work) {
  constexpr int COUNT = Points<TAPS>::COUNT, HALF = TAPS / 2;
  const int T = tiles(width), filled = grouped(outputs);
  const int band = band_rows(COUNT, inputs + filled, height, width);
  work.input.shape(COUNT, inputs, band + TAPS - 1, T);
  work.output.shape(COUNT, filled, band, T);
  for (Phases *phases : {&work.phases, work.results, work.results + 1}) phases->shape(width);
  for (int from = 0; from < height; from += band) {
    const int to = from + band < height ? from + band : height;
    transform_rows<COUNT>(height, from - HALF, to + HALF, source, Window<TAPS>{}, work.phases,
                          work.input);
    multiply<TAPS>(to - from, work.input, kernel, work.output);
    take(from, to);
  }
}

// Adds to the gradient of the transformed kernel; `source` are the inputs, `gradient` dL/doutputs.
template <int TAPS, typename Source, typename Gradient>
inline void convolve_backward(int inputs, int outputs, int height, int width, const Source &source,
                              const Gradient &gradient, float *dkernel, Workspace &work) {
  constexpr int COUNT = Points<TAPS>::COUNT, HALF = TAPS / 2;
  const int T = tiles(width), filled = grouped(outputs);
  const int band = band_rows(COUNT, inputs + filled, height, width);
  work.phases.shape(width);
  work.input.shape(COUNT, inputs, band + TAPS - 1, T);
  work.output.shape(COUNT, filled, band, T);
  const auto filled_gradient = [&](int o, int row, Phases &phases) {
    if (o < outputs)
      gradient(o, row, phases);
    else
      phases.clear();
  };
  for (int from = 0; from < height; from += band) {
    const int to = from + band < height ? from + band : height;
    transform_rows<COUNT>(height, from - HALF, to + HALF, source, Window<TAPS>{}, work.phases,
                          work.input);
    transform_rows<COUNT>(height, from, to, filled_gradient, Columns<TAPS>{}, work.phases,
                          work.output);
    correlate<TAPS>(to - from, work.input, work.output, dkernel);
  }
}

}  // namespace
