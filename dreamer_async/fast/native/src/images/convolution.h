// Convolutions of maps with 3x3 or 5x5 kernels, stride 1 and zero padding.
//
// Some tiles after the other are transformed (winograd.h), multiplied at all points
// (winograd_gemm.h) and transformed back while they are in the second cache. The gradient of the
// inputs takes the same way backward, with the transformed gradient of the outputs, which that of
// the kernel needs, too.

#pragma once

#include "maps.h"

namespace {

// Tiles that are in work at once, a multiple of TILE_BLOCK. Forward they stay in the second cache
// when transformed; backward, sums over more of them pay for a longer way.
constexpr int VECTORS = 10 << 10, VECTORS_BACKWARD = 24 << 10;

inline int tiles_at_once(int vectors, int points, int channels, int count) {
  constexpr int LEAST = 6;
  const int fit = vectors / (points * channels), most = fit < LEAST ? LEAST : fit;
  const int parts = (count + most - 1) / most, even = (count + parts - 1) / parts;
  return (even + TILE_BLOCK - 1) / TILE_BLOCK * TILE_BLOCK;
}

// Convolution of a map; take(channel, row of tiles, tile, y) gets the outputs, 4x4 at a time, also
// those beyond the map.
template <int TAPS, typename Take>
inline void convolve(const Map &map, int outputs, const float *kernel, const Take &take,
                     Workspace &work) {
  constexpr int POINTS = Winograd<TAPS>::ALPHA * Winograd<TAPS>::ALPHA;
  const int count = map.tile_count(), across = map.across();
  const int step = tiles_at_once(VECTORS, POINTS, map.channels + OUTPUT_PANEL, count);
  for (int from = 0; from < count; from += step) {
    const int to = from + step < count ? from + step : count;
    work.input.shape(POINTS, map.channels, to - from, TILE_BLOCK);
    work.products.shape(POINTS, to - from);
    transform_inputs<TAPS>(map, from, to, work);
    for (int o = 0; o < outputs; o += OUTPUT_PANEL) {
      winograd_gemm(map.channels, work.input, kernel + static_cast<long>(o) * POINTS * map.channels,
                    work.products);
      for (int c = o; c < o + OUTPUT_PANEL && c < outputs; c++)
        transform_outputs<TAPS>(c, across, from, to, work.products.at(c - o, 0),
                                work.products.tile, take);
    }
  }
}

// Adds to the gradient of the transformed kernel; get(channel, row of tiles, tile, y) sets the
// gradient of the outputs, zeros beyond the map. If there is a `transposed` kernel, dinput becomes
// dL/dinput.
template <int TAPS, typename Get>
inline void convolve_backward(const Map &map, int outputs, const float *transposed, const Get &get,
                              float *dkernel, float *dinput, Workspace &work) {
  constexpr int POINTS = Winograd<TAPS>::ALPHA * Winograd<TAPS>::ALPHA;
  const int C = map.channels, count = map.tile_count(), across = map.across();
  const int step =
      tiles_at_once(VECTORS_BACKWARD, POINTS, C + whole_panels(outputs) + OUTPUT_PANEL, count);
  const Map gradient{C, map.height, map.width, dinput};
  if (transposed) std::memset(dinput, 0, C * map.plane() * 4);
  for (int from = 0; from < count; from += step) {
    const int to = from + step < count ? from + step : count;
    work.input.shape(POINTS, C, to - from, to - from);
    work.output.shape(POINTS, whole_panels(outputs), to - from, TILE_BLOCK);
    transform_inputs<TAPS>(map, from, to, work);
    transform_outputs_backward<TAPS>(outputs, across, from, to, get, work.output);
    if (transposing_pays(to - from, C, outputs))
      gradient_gemm_transposed(C, work.input, work.output, work.transposed, dkernel);
    else
      gradient_gemm(C, work.input, work.output, dkernel);
    if (!transposed) continue;
    work.products.shape(POINTS, to - from);
    for (int o = 0; o < C; o += OUTPUT_PANEL) {
      winograd_gemm(outputs, work.output, transposed + static_cast<long>(o) * POINTS * outputs,
                    work.products);
      for (int c = o; c < o + OUTPUT_PANEL && c < C; c++)
        transform_inputs_backward<TAPS>(gradient, c, from, to, work.products.at(c - o, 0),
                                        work.products.tile, work);
    }
  }
}

}  // namespace
