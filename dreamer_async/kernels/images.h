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

constexpr int CHUNK = 16;  // pixels; areas are multiples of it

inline void inverse_rms(int C, long area, const float *x, float *inverse) {
  float squares[CHUNK] = {};
  for (int c = 0; c < C; c++)
#pragma omp simd
    for (int i = 0; i < CHUNK; i++) squares[i] += x[c * area + i] * x[c * area + i];
#pragma omp simd
  for (int i = 0; i < CHUNK; i++)
    inverse[i] = 1.0f / std::sqrt(squares[i] / static_cast<float>(C) + EPS);
}

// y = SiLU(x / rms(x) * gain) over the channels of each pixel; its slope, too, if that is wanted.
template <bool SLOPE>
inline void norm_silu_planes(int C, long area, const float *x, const float *gain, float *y,
                             float *slope = nullptr) {
  for (long at = 0; at < area; at += CHUNK) {
    float inverse[CHUNK];
    inverse_rms(C, area, x + at, inverse);
    for (int c = 0; c < C; c++) {
      const long start = c * area + at;
#pragma omp simd
      for (int i = 0; i < CHUNK; i++) {
        const float h = x[start + i] * inverse[i] * gain[c];
        const float s = sigmoid(h);
        y[start + i] = h * s;
        if (SLOPE) slope[start + i] = s * (1.0f + h * (1.0f - s));
      }
    }
  }
}

// Sums over the pixels of an image, of every channel in CHUNK parts.
struct Sums {
  std::vector<float> memory;

  void clear(int C) { memory.assign(static_cast<size_t>(C) * CHUNK, 0.0f); }
  float *of(int c) { return memory.data() + c * CHUNK; }

  void add_to(int C, float *total) {
    for (int c = 0; c < C; c++) {
      float sum = 0.0f;
      for (int i = 0; i < CHUNK; i++) sum += of(c)[i];
      total[c] += sum;
    }
  }
};

// g = dL/dy becomes dL/dx; the gradient of the gain is added up.
inline void norm_silu_planes_backward(int C, long area, const float *x, const float *gain,
                                      const float *slope, float *g, Sums &dgain) {
  for (long at = 0; at < area; at += CHUNK) {
    float inverse[CHUNK], dot[CHUNK] = {};
    inverse_rms(C, area, x + at, inverse);
    for (int c = 0; c < C; c++) {
      const long start = c * area + at;
      float *sum = dgain.of(c);
#pragma omp simd
      for (int i = 0; i < CHUNK; i++) {
        const float dh = g[start + i] * slope[start + i];
        sum[i] += dh * x[start + i] * inverse[i];
        g[start + i] = dh * gain[c];
        dot[i] += g[start + i] * x[start + i];
      }
    }
#pragma omp simd
    for (int i = 0; i < CHUNK; i++)
      dot[i] *= inverse[i] * inverse[i] / static_cast<float>(C);
    for (int c = 0; c < C; c++) {
      const long start = c * area + at;
#pragma omp simd
      for (int i = 0; i < CHUNK; i++)
        g[start + i] = inverse[i] * (g[start + i] - x[start + i] * dot[i]);
    }
  }
}

inline void sum_planes(int C, long area, const float *x, Sums &sums) {
  for (int c = 0; c < C; c++)
    for (long at = 0; at < area; at += CHUNK)
#pragma omp simd
      for (int i = 0; i < CHUNK; i++) sums.of(c)[i] += x[c * area + at + i];
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

inline void bytes_to_planes(int C, long pixels, long area, const uint8_t *from, float *to) {
  for (int c = 0; c < C; c++) {
#pragma omp simd
    for (long i = 0; i < pixels; i++)
      to[c * area + i] = static_cast<float>(from[i * C + c]) / 255.0f - 0.5f;
    std::memset(to + c * area + pixels, 0, (area - pixels) * 4);
  }
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
