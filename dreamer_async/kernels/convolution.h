// Convolutions of planes with 3x3 or 5x5 kernels, stride 1 and zero padding.
//
// Rows are transformed as in tiles.h. Across rows and channels the products are summed before going
// back, so the way there and back is paid once per row.
//
// A map is planes [channels, area] with the rows of an image one after the other and zeros up to
// the next multiple of 16 floats. A row of W columns is cut in T tiles of four; a transform of rows
// has one plane per point and channel, [rows, T].

#pragma once

#include "tiles.h"

namespace {

constexpr int GROUP = 4;  // outputs whose kernels lie side by side

inline int grouped(int outputs) { return (outputs + GROUP - 1) / GROUP * GROUP; }

inline long plane_area(int height, int width) {
  return (static_cast<long>(height) * width + 15) / 16 * 16;
}

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

// Memory of a thread for convolutions.
struct Workspace {
  Spectrum input, output, around;
  Phases phases, results[2];  // what is transformed, and what comes back
  std::vector<float> turned;
};

// One row of a channel, transformed. The last vector reaches into the row behind it, which is
// written after it.
template <int TAPS, typename Transform>
inline void transform_row(const Transform &transform, Phases &phases, Spectrum &to, int channel,
                          int row) {
  float *first = to.at(0, channel) + static_cast<long>(row) * to.tiles;
  for (int t = 0; t < to.tiles; t += LANES)
    transform(phases, t, first + t, to.channels * to.plane);
}

template <int TAPS>
inline void zero_row(Spectrum &to, int channel, int row) {
  for (int i = 0; i < Points<TAPS>::COUNT; i++)
    for (int t = 0; t < to.tiles; t += LANES)
      store_vec(to.at(i, channel) + static_cast<long>(row) * to.tiles + t, vec{});
}

// What products read behind the last row.
template <int TAPS>
inline void zero_end(Spectrum &to, int channel, int rows) {
  for (int i = 0; i < Points<TAPS>::COUNT; i++)
    store_vec(to.at(i, channel) + static_cast<long>(rows) * to.tiles, vec{});
}

// The windows of rows [from, to) of a map, and of the rows around them; those outside of the map
// are zero. source(channel, row, phases) puts a row there.
template <int TAPS, typename Source>
inline void transform_inputs(int height, int from, int to, const Source &source, Workspace &work) {
  constexpr int HALF = TAPS / 2;
  for (int c = 0; c < work.input.channels; c++) {
    for (int row = from - HALF; row < to + HALF; row++)
      if (row < 0 || row >= height) {
        zero_row<TAPS>(work.input, c, row - from + HALF);
      } else {
        source(c, row, work.phases);
        transform_row<TAPS>(Window<TAPS>{}, work.phases, work.input, c, row - from + HALF);
      }
    zero_end<TAPS>(work.input, c, to - from + TAPS - 1);
  }
}

// The columns of rows [from, to) of the gradient of the outputs, and, if `around`, also the windows
// of these and the rows around them.
template <int TAPS, typename Gradient>
inline void transform_gradient(int outputs, int height, int from, int to, bool around,
                               const Gradient &gradient, Workspace &work) {
  constexpr int HALF = TAPS / 2;
  const int more = around ? HALF : 0;
  for (int c = 0; c < outputs; c++) {
    for (int row = from - more; row < to + more; row++) {
      if (row < 0 || row >= height) {
        zero_row<TAPS>(work.around, c, row - from + HALF);
        continue;
      }
      gradient(c, row, work.phases);
      if (row >= from && row < to)
        transform_row<TAPS>(Columns<TAPS>{}, work.phases, work.output, c, row - from);
      if (around)
        transform_row<TAPS>(Window<TAPS>{}, work.phases, work.around, c, row - from + HALF);
    }
    zero_end<TAPS>(work.output, c, to - from);
    if (around) zero_end<TAPS>(work.around, c, to - from + TAPS - 1);
  }
  for (int c = outputs; c < work.output.channels; c++) {
    for (int row = from; row < to; row++) zero_row<TAPS>(work.output, c, row - from);
    zero_end<TAPS>(work.output, c, to - from);
  }
}

// Not inlined, here and below: there GCC has registers for all sums.
//
// y[GROUP outputs, `blocks` of V vectors] = the sum over channels and rows of kernels times x.
template <int TAPS, int V>
__attribute__((noinline)) void products_at(int blocks, int channels, const float *x, long plane,
                                           int T, const float *kernel, float *y, long y_plane) {
  for (int block = 0; block < blocks; block++, x += V * LANES, y += V * LANES) {
    vec sums[GROUP][V];  // not set by braces: GCC would take them through memory
#pragma GCC unroll 8
    for (int o = 0; o < GROUP; o++)
#pragma GCC unroll 8
      for (int v = 0; v < V; v++) sums[o][v] = vec{};
    const float *weights = kernel;
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
          for (int v = 0; v < V; v++) sums[o][v] += weights[o] * read[v];
        weights += GROUP;
      }
    }
#pragma GCC unroll 8
    for (int o = 0; o < GROUP; o++)
#pragma GCC unroll 8
      for (int v = 0; v < V; v++) store_vec(y + o * y_plane + v * LANES, sums[o][v]);
  }
}

// Products of `rows` rows; the kernel is [points, outputs / GROUP, channels, TAPS, GROUP].
template <int TAPS>
inline void multiply(int rows, Spectrum &x, const float *kernel, Spectrum &y) {
  constexpr int WIDE = LANES == 16 ? 6 : 3;
  const int vectors = (rows * x.tiles + LANES - 1) / LANES;
  for (int i = 0; i < Points<TAPS>::COUNT; i++)
    for (int o = 0; o < y.channels; o += GROUP) {
      int done = 0;
      const auto run = [&](auto width, int blocks) {
        constexpr int V = decltype(width)::value;
        products_at<TAPS, V>(blocks, x.channels, x.at(i, 0) + done * LANES, x.plane, x.tiles,
                             kernel, y.at(i, o) + done * LANES, y.plane);
        done += V * blocks;
      };
      run(Rows<WIDE>{}, vectors / WIDE);
      run(Rows<2>{}, (vectors - done) / 2);
      run(Rows<1>{}, vectors - done);
      kernel += x.channels * TAPS * GROUP;
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

// Sums over a plane of K rows of x, which begin at `from`, times GROUP rows of y, added to
// sum[K, outputs].
template <int K>
__attribute__((noinline)) void correlate_at(int vectors, const float *const *from, const float *y,
                                            long y_plane, float *sum, long outputs) {
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

// Adds the gradient of the transformed kernel, [points, TAPS, channels, padded(outputs)].
template <int TAPS>
inline void correlate(int rows, Spectrum &x, Spectrum &y, float *sum) {
  constexpr int MOST = LANES == 16 ? 6 : 3;
  const int T = x.tiles, K = x.channels * TAPS, N = padded(y.channels);
  const int vectors = (rows * T + LANES - 1) / LANES;
  for (int i = 0; i < Points<TAPS>::COUNT; i++) {
    const float *from[MOST];
    for (int k = 0; k < K; k += MOST) {
      const int count = K - k < MOST ? K - k : MOST;
      for (int j = 0; j < count; j++)
        from[j] = x.at(i, (k + j) % x.channels) + (k + j) / x.channels * T;
      for (int o = 0; o < y.channels; o += GROUP) {
        float *to = sum + static_cast<long>(k) * N + o;
        const auto run = [&](auto rows_of_x, int at) {
          correlate_at<decltype(rows_of_x)::value>(vectors, from + at, y.at(i, o), y.plane,
                                                   to + static_cast<long>(at) * N, N);
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
    sum += static_cast<long>(K) * N;
  }
}

// Whether maps of so many tiles are too small for sums over vectors of them.
inline bool few(int positions, int outputs) {
  return positions * padded(outputs) < 160 * outputs;
}

// The same with vectors of outputs, which must be brought together for that.
template <int TAPS>
inline void correlate_few(int rows, Spectrum &x, Spectrum &y, std::vector<float> &memory,
                          float *sum) {
  const int T = x.tiles, N = padded(y.channels), positions = rows * T;
  const size_t size = static_cast<size_t>(positions) * N;
  if (memory.size() < size) memory.resize(size);
  float *turned = memory.data();
  for (int i = 0; i < Points<TAPS>::COUNT; i++) {
    for (int p = 0; p < positions; p++) {
      for (int o = 0; o < y.channels; o++) turned[p * N + o] = y.at(i, o)[p];
      for (int o = y.channels; o < N; o++) turned[p * N + o] = 0.0f;
    }
    for (int row = 0; row < TAPS; row++)
      for (int j = 0; j < N; j += PANEL)
        rows_of_panel(x.channels, positions, x.at(i, 0) + row * T, x.plane, 1, turned + j, N,
                      sum + static_cast<long>(row) * x.channels * N + j, N,
                      sum + static_cast<long>(row) * x.channels * N + j, N);
    sum += static_cast<long>(TAPS) * x.channels * N;
  }
}

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
  constexpr int COUNT = Points<TAPS>::COUNT;
  const int T = tiles(width), filled = grouped(outputs);
  const int band = band_rows(COUNT, inputs + filled, height, width);
  work.input.shape(COUNT, inputs, band + TAPS - 1, T);
  work.output.shape(COUNT, filled, band, T);
  for (Phases *phases : {&work.phases, work.results, work.results + 1}) phases->shape(width);
  for (int from = 0; from < height; from += band) {
    const int to = from + band < height ? from + band : height;
    transform_inputs<TAPS>(height, from, to, source, work);
    multiply<TAPS>(to - from, work.input, kernel, work.output);
    take(from, to);
  }
}

// Adds to the gradient of the transformed kernel; gradient(channel, row, phases) puts a row of
// dL/doutputs there. If there is a `turned` kernel, take(from, to) is told when work.output holds
// the transforms of rows [from, to) of dL/dinputs.
template <int TAPS, typename Source, typename Gradient, typename Take>
inline void convolve_backward(int inputs, int outputs, int height, int width, const float *turned,
                              const Source &source, const Gradient &gradient, float *dkernel,
                              const Take &take, Workspace &work) {
  constexpr int COUNT = Points<TAPS>::COUNT;
  const int T = tiles(width), filled = grouped(outputs);
  const int band = band_rows(COUNT, inputs + (turned ? 2 : 1) * filled, height, width);
  work.input.shape(COUNT, inputs, band + TAPS - 1, T);
  if (turned) work.around.shape(COUNT, outputs, band + TAPS - 1, T);
  for (Phases *phases : {&work.phases, work.results}) phases->shape(width);
  for (int from = 0; from < height; from += band) {
    const int to = from + band < height ? from + band : height;
    work.output.shape(COUNT, filled, band, T);
    transform_inputs<TAPS>(height, from, to, source, work);
    transform_gradient<TAPS>(outputs, height, from, to, turned != nullptr, gradient, work);
    if (few((to - from) * T, outputs))
      correlate_few<TAPS>(to - from, work.input, work.output, work.turned, dkernel);
    else
      correlate<TAPS>(to - from, work.input, work.output, dkernel);
    if (!turned) continue;
    work.output.shape(COUNT, grouped(inputs), band, T);
    multiply<TAPS>(to - from, work.around, turned, work.output);
    take(from, to);
  }
}

}  // namespace
