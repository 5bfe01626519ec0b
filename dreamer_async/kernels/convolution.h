// Convolutions of maps with 3x3 or 5x5 kernels, stride 1 and zero padding.
//
// Some tiles after the other are transformed as in tiles.h, multiplied at all points, and go back
// while they are in the second cache. The gradient of the inputs takes the same way backwards, with
// the transforms of the outputs' gradient that that of the kernel needs, too.

#pragma once

#include "maps.h"

namespace {

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
      correlate_turned(C, work.input, work.output, work.turned, dkernel);
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
