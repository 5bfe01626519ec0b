// What the convolutional encoder and decoder share: groups of LANES images pixel by pixel, RMSNorm
// and SiLU over their channels, and the gradients that they add.
//
// A group goes through all layers while its maps are in the caches. What the backward pass needs
// are the maps in front of the norms and, for pooling, which pixel was the largest; everything else
// is computed anew from them. See maps.h for the layout of maps. Where there are fewer images than
// lanes, the others are zero, and so is what is asked of them.

#pragma once

#include "convolution.h"
#include "../norm.h"
#include "../structs.h"
#include "../threads.h"

namespace {

// One over the root mean square over the channels of a pixel.
inline vec inverse_rms(int C, long plane, const float *x) {
  vec squares{};
  for (int c = 0; c < C; c++) {
    const vec a = load_vec(x + c * plane);
    squares += a * a;
  }
  return 1.0f / square_root(squares / static_cast<float>(C) + EPS);
}

// y = SiLU(x / rms(x) * gain) over the channels of each pixel; its slope, too, if that is wanted.
template <bool SLOPE>
inline void norm_silu_planes(int C, long pixels, long plane, const float *x, const float *gain,
                             float *y, float *slope = nullptr) {
  for (long at = 0; at < pixels * LANES; at += LANES) {
    const vec inverse = inverse_rms(C, plane, x + at);
    for (int c = 0; c < C; c++) {
      const long i = c * plane + at;
      const vec h = load_vec(x + i) * inverse * gain[c], s = sigmoid(h);
      store_vec(y + i, h * s);
      if (SLOPE) store_vec(slope + i, s * (1.0f + h * (1.0f - s)));
    }
  }
}

// Sums over the pixels of a group, of every channel in LANES parts.
struct Sums {
  std::vector<float> memory;

  void clear(int C) { memory.assign(static_cast<size_t>(C) * LANES, 0.0f); }
  void add(int c, vec x) { store_vec(of(c), load_vec(of(c)) + x); }
  float *of(int c) { return memory.data() + c * LANES; }

  void add_to(int C, float *total) {
    for (int c = 0; c < C; c++) total[c] += horizontal_sum(load_vec(of(c)));
  }
};

// g = dL/dy becomes dL/dx; the gradient of the gain is added up.
inline void norm_silu_planes_backward(int C, long pixels, long plane, const float *x,
                                      const float *gain, const float *slope, float *g,
                                      Sums &dgain) {
  for (long at = 0; at < pixels * LANES; at += LANES) {
    const vec inverse = inverse_rms(C, plane, x + at);
    vec dot{};
    for (int c = 0; c < C; c++) {
      const long i = c * plane + at;
      const vec n = load_vec(x + i) * inverse, dh = load_vec(g + i) * load_vec(slope + i);
      dgain.add(c, dh * n);
      store_vec(g + i, dh * gain[c]);
      dot += dh * gain[c] * n;
    }
    dot *= inverse / static_cast<float>(C);
    for (int c = 0; c < C; c++) {
      const long i = c * plane + at;
      store_vec(g + i, inverse * (load_vec(g + i) - load_vec(x + i) * dot));
    }
  }
}

// Adds the sum of each channel.
inline void sum_planes(int C, long pixels, long plane, const float *x, float *total) {
  for (int c = 0; c < C; c++) {
    vec sum{};
    for (long at = 0; at < pixels * LANES; at += LANES) sum += load_vec(x + c * plane + at);
    total[c] += horizontal_sum(sum);
  }
}

constexpr int EIGHT = 8;  // numbers of an image that are transposed at once

// f(k) for each k < n <= EIGHT; the compiler knows how many there are of whole ones.
template <typename F>
inline void each_of_eight(int n, const F &f) {
  if (n == EIGHT)
    for (int k = 0; k < EIGHT; k++) f(k);
  else
    for (int k = 0; k < n; k++) f(k);
}

// A map of C channels from `lanes` images of C numbers a pixel: read(lane, index) is one of them.
template <typename Read>
inline void to_map(int C, long pixels, long plane, int lanes, const Read &read, float *to) {
  float rows[LANES * EIGHT] = {}, transposed[EIGHT * LANES];
  const long numbers = pixels * C;
  int c = 0;
  for (long i = 0; i < numbers; i += EIGHT) {
    const int n = static_cast<int>(numbers - i < EIGHT ? numbers - i : EIGHT);
    for (int lane = 0; lane < lanes; lane++)
      each_of_eight(n, [&](int k) { rows[lane * EIGHT + k] = read(lane, i + k); });
    for (int l = 0; l < LANES; l += 8)
      transpose_8x8(rows + l * EIGHT, EIGHT, transposed + l, LANES);
    for (int k = 0; k < n; k++) {
      store_vec(to + c * plane, load_vec(transposed + k * LANES));
      if (++c == C) c = 0, to += LANES;
    }
  }
}

// And back: write(lane, index, number).
template <typename Write>
inline void from_map(int C, long pixels, long plane, int lanes, const float *from,
                     const Write &write) {
  float rows[LANES * EIGHT], transposed[EIGHT * LANES] = {};
  const long numbers = pixels * C;
  int c = 0;
  for (long i = 0; i < numbers; i += EIGHT) {
    const int n = static_cast<int>(numbers - i < EIGHT ? numbers - i : EIGHT);
    for (int k = 0; k < n; k++) {
      store_vec(transposed + k * LANES, load_vec(from + c * plane));
      if (++c == C) c = 0, from += LANES;
    }
    for (int l = 0; l < LANES; l += 8)
      transpose_8x8(transposed + l, LANES, rows + l * EIGHT, EIGHT);
    for (int lane = 0; lane < lanes; lane++)
      each_of_eight(n, [&](int k) { write(lane, i + k, rows[lane * EIGHT + k]); });
  }
}

// Images of `size` numbers one after the other, to be read into a map or written from one.
struct ReadFrom {
  const float *first;
  long size;
  float operator()(int lane, long i) const { return first[lane * size + i]; }
};

struct WriteTo {
  float *first;
  long size;
  void operator()(int lane, long i, float number) const { first[lane * size + i] = number; }
};

// Images of a group: which is the first, and how many there are.
struct Group {
  long index, first;
  int lanes;
};

// Memory of a thread for images.
struct Maps {
  Workspace work;
  std::vector<float> input, gradient, next, pre_norm, slope, below;
  std::vector<uint8_t> winner;
  Sums dgain;
};

Maps &maps_of_thread() {
  thread_local Maps maps;
  return maps;
}

// What one group adds to the gradients of bias and gain. g = dL/dy of the layer becomes that of the
// map in front of its norm, if it has one.
inline void norm_backward(const ConvLayer &layer, long piece, long pixels, long plane,
                          const float *pre_norm, const float *slope, float *g, Maps &maps) {
  const int C = layer.outputs;
  if (layer.gain) {
    maps.dgain.clear(C);
    norm_silu_planes_backward(C, pixels, plane, pre_norm, layer.gain, slope, g, maps.dgain);
    maps.dgain.add_to(C, layer.dgain + piece * C);
  }
  sum_planes(C, pixels, plane, g, layer.dbias + piece * C);
}

// The gradient of a layer's transformed kernel that a piece adds to.
template <int TAPS>
inline float *kernel_gradient(const ConvLayer &layer, long piece, int outputs) {
  constexpr long POINTS = Winograd<TAPS>::ALPHA * Winograd<TAPS>::ALPHA;
  return layer.dkernel + piece * POINTS * layer.inputs * padded(whole_panels(outputs));
}

// Floats that the largest map of a group takes; each layer halves or doubles the resolution.
inline long most_floats(const ConvLayer *layers, int count, int height, int width, bool doubles) {
  long most = 0;
  for (int l = 0; l < count; l++) {
    const long in = layers[l].inputs * map_plane(height, width);
    height = doubles ? height * 2 : height / 2;
    width = doubles ? width * 2 : width / 2;
    const long out = layers[l].outputs * map_plane(height, width);
    most = in > most ? in : most;
    most = out > most ? out : most;
  }
  return most;
}

inline long groups_of(long images) { return (images + LANES - 1) / LANES; }

// Work on groups [groups * i / pieces, groups * (i + 1) / pieces) for each piece.
template <typename Work>
void for_groups(long images, long pieces, int threads, const Work &work) {
  const long groups = groups_of(images);
  parallel_for(pieces, threads, [&](long i) {
    Maps &maps = maps_of_thread();
    for (long g = groups * i / pieces; g < groups * (i + 1) / pieces; g++) {
      const long left = images - g * LANES;
      work(i, Group{g, g * LANES, static_cast<int>(left < LANES ? left : LANES)}, maps);
    }
  });
}

}  // namespace
