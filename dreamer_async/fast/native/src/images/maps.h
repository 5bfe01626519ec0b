// Maps of a group of images, and the Winograd transforms of their tiles.
//
// A map is [channels, pixels, LANES]: a vector holds the same pixel of all images of the group, so
// that everything but sums for the gradients of kernels is done lane by lane, for small maps as
// well as for large ones. Planes of channels begin `plane` floats apart.

#pragma once

#include "winograd.h"
#include "winograd_gemm.h"

namespace {

// Floats from one channel of a map to the next.
inline long map_plane(int height, int width) {
  return padded_stride(static_cast<long>(height) * width * LANES);
}

// Memory of a thread for convolutions.
struct Workspace {
  TransformedTiles input, output;
  TransformedOutputs products;
  std::vector<float> columns, edge, beyond, transposed;
};

// A map, or where one goes. Few images are cut in strips of rows, which take lanes of their own:
// what lies above the rows of a lane is in the lane before, unless that belongs to another image.
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

// What a row of tiles reads or adds to: `ALPHA` rows, those outside of the map elsewhere; and which
// of its columns are in the map.
template <int TAPS>
struct Reach {
  static constexpr int ALPHA = Winograd<TAPS>::ALPHA, HALF = TAPS / 2;
  float *rows[ALPHA];
  int columns, first, last;  // all columns; those in the map
  long start;                // floats from column 0 to the first of all

  Reach(const Map &map, int channel, int tile_row, int tile, int count, float *outside,
        float *beyond = nullptr) {
    const int column = TILE * tile - HALF;
    for (int i = 0; i < ALPHA; i++) {
      const int row = TILE * tile_row - HALF + i;
      const int other = row < 0 ? row + HALF : row - map.height + HALF;  // of those beyond
      if (row >= 0 && row < map.height)
        rows[i] = map.row(channel, row);
      else if (beyond && other < 2 * HALF)
        rows[i] = beyond + static_cast<long>(other) * map.width * LANES;
      else
        rows[i] = outside;
    }
    columns = TILE * (count - 1) + ALPHA;
    first = column < 0 ? -column : 0;
    last = map.width - column < columns ? map.width - column : columns;
    start = static_cast<long>(column) * LANES;
  }
};

// B^T d B of what tiles [from, to) read.
template <int TAPS>
inline void transform_inputs(const Map &map, int from, int to, Workspace &work) {
  constexpr int ALPHA = Winograd<TAPS>::ALPHA;
  const long line = (TILE * map.across() + ALPHA) * LANES;
  float *columns = sized(work.columns, ALPHA * line), *outside = sized(work.edge, line);
  std::memset(outside, 0, line * 4);
  const auto transform = [&](int c, float *beyond, int tile_row, int tile, int count, int at) {
    const Reach<TAPS> reach(map, c, tile_row, tile, count, outside, beyond);
    for (int p = 0; p < ALPHA; p++) {
      for (int k = 0; k < reach.first; k++) store_vec(columns + p * line + k * LANES, vec{});
      for (int k = reach.last; k < reach.columns; k++)
        store_vec(columns + p * line + k * LANES, vec{});
    }
    for (int k = reach.first; k < reach.last; k++) {
      vec d[ALPHA], f[ALPHA];
      for (int i = 0; i < ALPHA; i++) d[i] = load_vec(reach.rows[i] + reach.start + k * LANES);
      Winograd<TAPS>::input_transform(d, f);
      for (int p = 0; p < ALPHA; p++) store_vec(columns + p * line + k * LANES, f[p]);
    }
    for (int p = 0; p < ALPHA; p++)
      for (int t = 0; t < count; t++) {
        vec d[ALPHA], f[ALPHA];
        for (int i = 0; i < ALPHA; i++)
          d[i] = load_vec(columns + p * line + (TILE * t + i) * LANES);
        Winograd<TAPS>::input_transform(d, f);
        float *to = work.input.at(c, at + t) + p * ALPHA * work.input.point;
        for (int q = 0; q < ALPHA; q++) store_vec(to + q * work.input.point, f[q]);
      }
  };
  for (int c = 0; c < map.channels; c++) {
    float *beyond = map.strips > 1 ? rows_beyond<TAPS>(map, c, work.beyond) : nullptr;
    each_row_of_tiles(map.across(), from, to,
                      [&](auto... where) { transform(c, beyond, where...); });
  }
}

// Back from that: adds to a channel of the gradient of a map what tiles [from, to) had read of it.
template <int TAPS>
inline void transform_inputs_backward(const Map &map, int c, int from, int to,
                                      const float *products, long step, Workspace &work) {
  constexpr int ALPHA = Winograd<TAPS>::ALPHA;
  const long line = (TILE * map.across() + ALPHA) * LANES;
  float *columns = sized(work.columns, ALPHA * line), *outside = sized(work.edge, line);
  each_row_of_tiles(map.across(), from, to, [&](int tile_row, int tile, int count, int at) {
    const Reach<TAPS> reach(map, c, tile_row, tile, count, outside);
    for (int p = 0; p < ALPHA; p++) {
      vec before[ALPHA - TILE] = {};  // of the tile to the left, in columns that both read
      float *to = columns + p * line;
      for (int t = 0; t < count; t++, to += TILE * LANES) {
        const float *from = products + (at + t) * step + p * ALPHA * LANES;
        vec d[ALPHA], f[ALPHA];
        for (int q = 0; q < ALPHA; q++) f[q] = load_vec(from + q * LANES);
        Winograd<TAPS>::input_transform_backward(f, d);
        for (int i = 0; i < ALPHA - TILE; i++) d[i] += before[i];
        for (int i = 0; i < TILE; i++) store_vec(to + i * LANES, d[i]);
        for (int i = 0; i < ALPHA - TILE; i++) before[i] = d[TILE + i];
      }
      for (int i = 0; i < ALPHA - TILE; i++) store_vec(to + i * LANES, before[i]);
    }
    for (int k = reach.first; k < reach.last; k++) {
      vec d[ALPHA], f[ALPHA];
      for (int p = 0; p < ALPHA; p++) f[p] = load_vec(columns + p * line + k * LANES);
      Winograd<TAPS>::input_transform_backward(f, d);
      for (int i = 0; i < ALPHA; i++) {
        float *to = reach.rows[i] + reach.start + k * LANES;
        store_vec(to, load_vec(to) + d[i]);
      }
    }
  });
}

// A dy A^T of the gradients of outputs: get(channel, row of tiles, tile, y) sets y[4, 4].
template <int TAPS, typename Get>
inline void transform_outputs_backward(int outputs, int across, int from, int to, const Get &get,
                                       TransformedTiles &s) {
  constexpr int ALPHA = Winograd<TAPS>::ALPHA;
  const auto transform = [&](int c, int t) {
    vec y[TILE][TILE], half[ALPHA][TILE];
    get(c, t / across, t % across, y);
    for (int j = 0; j < TILE; j++) {
      vec d[TILE], f[ALPHA];
      for (int i = 0; i < TILE; i++) d[i] = y[i][j];
      Winograd<TAPS>::output_transform_backward(d, f);
      for (int p = 0; p < ALPHA; p++) half[p][j] = f[p];
    }
    for (int p = 0; p < ALPHA; p++) {
      vec f[ALPHA];
      Winograd<TAPS>::output_transform_backward(half[p], f);
      float *to_point = s.at(c, t - from) + p * ALPHA * s.point;
      for (int q = 0; q < ALPHA; q++) store_vec(to_point + q * s.point, f[q]);
    }
  };
  // Block by block, so that channels fill whole lines of a block one after the other.
  for (int block = from; block < to; block += TILE_BLOCK)
    for (int c = 0; c < outputs; c++)
      for (int t = block; t < to && t < block + TILE_BLOCK; t++) transform(c, t);
  for (int c = outputs; c < s.channels; c++)
    for (int t = 0; t < to - from; t++)
      for (int i = 0; i < ALPHA * ALPHA; i++) store_vec(s.at(c, t) + i * s.point, vec{});
}

// A^T m A of one channel of some tiles: take(channel, row of tiles, tile, y) gets y[4, 4].
template <int TAPS, typename Take>
inline void transform_outputs(int c, int across, int from, int to, const float *products, long step,
                              const Take &take) {
  constexpr int ALPHA = Winograd<TAPS>::ALPHA;
  for (int t = from; t < to; t++, products += step) {
    vec y[TILE][TILE], half[TILE][ALPHA];
    for (int p = 0; p < ALPHA; p++) {
      vec f[ALPHA], d[TILE];
      for (int q = 0; q < ALPHA; q++) f[q] = load_vec(products + (p * ALPHA + q) * LANES);
      Winograd<TAPS>::output_transform(f, d);
      for (int j = 0; j < TILE; j++) half[j][p] = d[j];
    }
    for (int j = 0; j < TILE; j++) {
      vec d[TILE];
      Winograd<TAPS>::output_transform(half[j], d);
      for (int i = 0; i < TILE; i++) y[i][j] = d[i];
    }
    take(c, t / across, t % across, y);
  }
}

}  // namespace
