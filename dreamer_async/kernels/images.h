// What the convolutional encoder and decoder share: planes of pixels, RMSNorm and SiLU over them,
// and the gradients that an image adds.
//
// An image goes through all layers while its maps are in the cache. What the backward pass needs
// are the maps in front of the norms and, for pooling, which pixel was the largest; everything else
// is computed anew from them. See convolution.h for the layout of maps.

#pragma once

#include "convolution.h"
#include "threads.h"

// One layer: a convolution, then pooling (encoder) or a pixel shuffle (decoder), then RMSNorm and
// SiLU, which the last layer of the decoder lacks.
struct ImageLayer {
  int inputs;     // channels
  int outputs;    // channels after the pixel shuffle
  const float *kernel;      // transformed and packed, see multiply
  const float *turned;      // the same of the gradient of the inputs; null: not wanted
  const float *bias, *gain;  // [outputs]; the gain may be null
  float *before;             // [images, outputs, area] in front of the norm, or null: not kept
  uint8_t *winner;           // the same shape; encoder only
  // What each piece of the images adds: [pieces, points, taps, inputs, padded(outputs of the
  // convolution)], and [pieces, outputs].
  float *dkernel, *dbias, *dgain;
};

namespace {

// One over the root mean square over the channels of LANES pixels; areas are multiples of that.
inline vec inverse_rms(int C, long area, const float *x) {
  vec squares{};
  for (int c = 0; c < C; c++) {
    const vec a = load_vec(x + c * area);
    squares += a * a;
  }
  return 1.0f / root(squares / static_cast<float>(C) + EPS);
}

// y = SiLU(x / rms(x) * gain) over the channels of each pixel; its slope, too, if that is wanted.
template <bool SLOPE>
inline void norm_silu_planes(int C, long area, const float *x, const float *gain, float *y,
                             float *slope = nullptr) {
  for (long at = 0; at < area; at += LANES) {
    const vec inverse = inverse_rms(C, area, x + at);
    for (int c = 0; c < C; c++) {
      const long i = c * area + at;
      const vec h = load_vec(x + i) * inverse * gain[c], s = sigmoid(h);
      store_vec(y + i, h * s);
      if (SLOPE) store_vec(slope + i, s * (1.0f + h * (1.0f - s)));
    }
  }
}

// Sums over the pixels of an image, of every channel in LANES parts.
struct Sums {
  std::vector<float> memory;

  void clear(int C) { memory.assign(static_cast<size_t>(C) * LANES, 0.0f); }
  void add(int c, vec x) { store_vec(of(c), load_vec(of(c)) + x); }
  float *of(int c) { return memory.data() + c * LANES; }

  void add_to(int C, float *total) {
    for (int c = 0; c < C; c++) total[c] += sum_of(load_vec(of(c)));
  }
};

// g = dL/dy becomes dL/dx; the gradient of the gain is added up.
inline void norm_silu_planes_backward(int C, long area, const float *x, const float *gain,
                                      const float *slope, float *g, Sums &dgain) {
  for (long at = 0; at < area; at += LANES) {
    const vec inverse = inverse_rms(C, area, x + at);
    vec dot{};
    for (int c = 0; c < C; c++) {
      const long i = c * area + at;
      const vec n = load_vec(x + i) * inverse, dh = load_vec(g + i) * load_vec(slope + i);
      dgain.add(c, dh * n);
      store_vec(g + i, dh * gain[c]);
      dot += dh * gain[c] * n;
    }
    dot *= inverse / static_cast<float>(C);
    for (int c = 0; c < C; c++) {
      const long i = c * area + at;
      store_vec(g + i, inverse * (load_vec(g + i) - load_vec(x + i) * dot));
    }
  }
}

inline void sum_planes(int C, long area, const float *x, Sums &sums) {
  for (int c = 0; c < C; c++)
    for (long at = 0; at < area; at += LANES) sums.add(c, load_vec(x + c * area + at));
}

// Pixels [pixels, C] to planes [C, area] and back.
inline void to_planes(int C, long pixels, long area, const float *from, float *to) {
  for (int c = 0; c < C; c++) {
    for (long i = 0; i < pixels; i++) to[c * area + i] = from[i * C + c];
    std::memset(to + c * area + pixels, 0, (area - pixels) * 4);
  }
}

inline void to_pixels(int C, long pixels, long area, const float *from, float *to) {
  for (long i = 0; i < pixels; i++)
    for (int c = 0; c < C; c++) to[i * C + c] = from[c * area + i];
}

// COLOURS is the number of channels where the compiler is to know it, or 0.
template <int COLOURS>
inline void planes_of_bytes(int channels, long pixels, long area, const uint8_t *from, float *to) {
  const int C = COLOURS ? COLOURS : channels;
  for (int c = 0; c < C; c++) {
#pragma omp simd
    for (long i = 0; i < pixels; i++)
      to[c * area + i] = static_cast<float>(from[i * C + c]) / 255.0f - 0.5f;
    std::memset(to + c * area + pixels, 0, (area - pixels) * 4);
  }
}

inline void bytes_to_planes(int C, long pixels, long area, const uint8_t *from, float *to) {
  const auto planes = C == 1   ? planes_of_bytes<1>
                      : C == 3 ? planes_of_bytes<3>
                               : planes_of_bytes<0>;
  planes(C, pixels, area, from, to);
}

// Memory of a thread for images.
struct Maps {
  Workspace work;
  std::vector<float> input, gradient, next, before, row, line, slope, below;
  std::vector<uint8_t> winner, winners;
  Sums dbias, dgain;
};

Maps &maps_of_thread() {
  thread_local Maps maps;
  return maps;
}

template <typename T>
inline T *sized(std::vector<T> &memory, long size) {
  if (static_cast<long>(memory.size()) < size + OVERRUN) memory.resize(size + OVERRUN);
  return memory.data();
}

// Zero what fills up planes.
inline void zero_rest(int C, long pixels, long area, float *x) {
  for (int c = 0; c < C; c++) std::memset(x + c * area + pixels, 0, (area - pixels) * 4);
}

// What the pixels of one image add to the gradients of bias and gain. g = dL/dy of the layer
// becomes that of the map in front of its norm, if it has one.
inline void norm_backward(const ImageLayer &layer, long piece, long area, const float *before,
                          const float *slope, float *g, Maps &maps) {
  const int C = layer.outputs;
  if (layer.gain) {
    maps.dgain.clear(C);
    norm_silu_planes_backward(C, area, before, layer.gain, slope, g, maps.dgain);
    maps.dgain.add_to(C, layer.dgain + piece * C);
  }
  maps.dbias.clear(C);
  sum_planes(C, area, g, maps.dbias);
  maps.dbias.add_to(C, layer.dbias + piece * C);
}

// The rows of a map.
struct RowsOf {
  const float *x;
  long area;
  int width;
  void operator()(int c, int row, Phases &phases) const {
    phases.split(x + c * area + static_cast<long>(row) * width);
  }
};

// Puts rows of a result into a map.
template <int TAPS>
struct MapOf {
  int channels;
  long area;
  int width;
  float *x;
  Maps &maps;
  void operator()(int from, int to) const {
    float *values = sized(maps.line, width);
    for (int c = 0; c < channels; c++)
      for (int row = from; row < to; row++) {
        row_of_outputs<TAPS>(maps.work.output, c, row - from, maps.work.results[0]);
        maps.work.results[0].join(values);
        std::memcpy(x + c * area + static_cast<long>(row) * width, values, width * 4);
      }
  }
};

// Floats that the largest map of an image takes; each layer halves or doubles the resolution.
inline long most_floats(const ImageLayer *layers, int count, int height, int width, bool doubles) {
  long most = 0;
  for (int l = 0; l < count; l++) {
    const long in = layers[l].inputs * plane_area(height, width);
    height = doubles ? height * 2 : height / 2;
    width = doubles ? width * 2 : width / 2;
    const long out = layers[l].outputs * plane_area(height, width);
    most = in > most ? in : most;
    most = out > most ? out : most;
  }
  return most;
}

// Work on images [images * i / pieces, images * (i + 1) / pieces) for each piece.
template <typename Work>
void for_images(long images, long pieces, int threads, const Work &work) {
  share(pieces, threads, [&](long i) {
    Maps &maps = maps_of_thread();
    for (long image = images * i / pieces; image < images * (i + 1) / pieces; image++)
      work(i, image, maps);
  });
}

}  // namespace
