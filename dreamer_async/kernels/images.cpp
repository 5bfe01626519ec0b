// Images to features and back: the convolutional encoder and decoder, image by image.
//
// An image goes through all layers while its maps are in the cache. What the backward pass needs
// are the maps in front of the norms and, for pooling, which pixel was the largest; everything else
// is computed anew from them. See convolution.h for the layout of maps.

#include "convolution.h"
#include "threads.h"

// One layer: a convolution, then pooling (encoder) or a pixel shuffle (decoder), then RMSNorm and
// SiLU, which the last layer of the decoder lacks.
struct ImageLayer {
  int inputs;     // channels
  int outputs;    // channels after the pixel shuffle
  const float *kernel;      // transformed and packed, see multiply
  const float *transposed;  // of the gradient of the inputs; null: not wanted
  const float *bias, *gain;  // [outputs]; the gain may be null
  float *before;             // [images, outputs, area] in front of the norm, or null: not kept
  uint8_t *winner;           // the same shape; encoder only
  // What each piece of the images adds: [pieces, points, inputs, taps, filled convolution outputs],
  // and [pieces, outputs].
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

// y = SiLU(x / rms(x) * gain) over the channels of each pixel.
inline void norm_silu_planes(int C, long area, const float *x, const float *gain, float *y) {
  for (long at = 0; at < area; at += CHUNK) {
    float inverse[CHUNK];
    inverse_rms(C, area, x + at, inverse);
    for (int c = 0; c < C; c++) {
      const float *from = x + c * area + at;
      float *to = y + c * area + at;
#pragma omp simd
      for (int i = 0; i < CHUNK; i++) {
        const float h = from[i] * inverse[i] * gain[c];
        to[i] = h * sigmoid(h);
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
inline void norm_silu_planes_backward(int C, long area, const float *x, const float *gain, float *g,
                                      Sums &dgain) {
  for (long at = 0; at < area; at += CHUNK) {
    float inverse[CHUNK], dot[CHUNK] = {};
    inverse_rms(C, area, x + at, inverse);
    for (int c = 0; c < C; c++) {
      const float *xc = x + c * area + at;
      float *gc = g + c * area + at, *sum = dgain.of(c);
#pragma omp simd
      for (int i = 0; i < CHUNK; i++) {
        const float normal = xc[i] * inverse[i], h = normal * gain[c];
        const float s = sigmoid(h);
        const float dh = gc[i] * s * (1.0f + h * (1.0f - s));
        sum[i] += dh * normal;
        gc[i] = dh * gain[c];
        dot[i] += gc[i] * xc[i];
      }
    }
#pragma omp simd
    for (int i = 0; i < CHUNK; i++)
      dot[i] *= inverse[i] * inverse[i] / static_cast<float>(C);
    for (int c = 0; c < C; c++) {
      const float *xc = x + c * area + at;
      float *gc = g + c * area + at;
#pragma omp simd
      for (int i = 0; i < CHUNK; i++) gc[i] = inverse[i] * (gc[i] - xc[i] * dot[i]);
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
  std::vector<float> image, input, gradient, next, before, row, line;
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
                          float *g, Maps &maps) {
  const int C = layer.outputs;
  if (layer.gain) {
    maps.dgain.clear(C);
    norm_silu_planes_backward(C, area, before, layer.gain, g, maps.dgain);
    maps.dgain.add_to(C, layer.dgain + piece * C);
  }
  maps.dbias.clear(C);
  sum_planes(C, area, g, maps.dbias);
  maps.dbias.add_to(C, layer.dbias + piece * C);
}

// -- encoder --------------------------------------------------------------------------------------

#if defined(__AVX2__)
// Lanes as shuffles of two vectors leave them, in order.
inline __m256 in_order(__m256 x) {
  return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(x), 0xd8));
}

inline __m256 equal(__m256i a, int32_t b) {
  return _mm256_castsi256_ps(_mm256_cmpeq_epi32(a, _mm256_set1_epi32(b)));
}

// Of four numbers in each lane the largest, and which one it is.
inline __m256 largest(const __m256 *x, __m256i &which) {
  __m256 most = x[0];
  which = _mm256_setzero_si256();
  for (int i = 1; i < 4; i++) {
    const __m256 larger = _mm256_cmp_ps(x[i], most, _CMP_GT_OQ);
    most = _mm256_blendv_ps(most, x[i], larger);
    which = _mm256_blendv_epi8(which, _mm256_set1_epi32(i), _mm256_castps_si256(larger));
  }
  return most;
}
#endif

// The largest of 2x2 pixels of two rows plus a bias, and which it is: of equal ones the first in
// reading order. Whole vectors are written.
inline void pool_rows(Phases &top, Phases &bottom, float bias, float *to, uint8_t *winner) {
#if defined(__AVX2__)
  for (int t = 0; t < top.count; t += 8) {
    __m256 most[2];
    __m256i which[2];
    for (int i = 0; i < 2; i++) {
      const __m256 x[4] = {
          _mm256_loadu_ps(top.of(2 * i) + t), _mm256_loadu_ps(top.of(2 * i + 1) + t),
          _mm256_loadu_ps(bottom.of(2 * i) + t), _mm256_loadu_ps(bottom.of(2 * i + 1) + t)};
      most[i] = _mm256_add_ps(largest(x, which[i]), _mm256_set1_ps(bias));
    }
    const __m256 low = _mm256_unpacklo_ps(most[0], most[1]);
    const __m256 high = _mm256_unpackhi_ps(most[0], most[1]);
    _mm256_storeu_ps(to + 2 * t, _mm256_permute2f128_ps(low, high, 0x20));
    _mm256_storeu_ps(to + 2 * t + 8, _mm256_permute2f128_ps(low, high, 0x31));
    const __m256i both = _mm256_or_si256(which[0], _mm256_slli_epi32(which[1], 8));
    const __m128i bytes = _mm_packus_epi32(_mm256_castsi256_si128(both),
                                           _mm256_extracti128_si256(both, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i *>(winner + 2 * t), bytes);
  }
#else
  for (int i = 0; i < top.width / 2; i++) {
    const int t = i / 2, left = i % 2 * 2;
    const float x[4] = {top.of(left)[t], top.of(left + 1)[t], bottom.of(left)[t],
                        bottom.of(left + 1)[t]};
    int which = 0;
    for (int k = 1; k < 4; k++) which = x[k] > x[which] ? k : which;
    to[i] = x[which] + bias;
    winner[i] = static_cast<uint8_t>(which);
  }
#endif
}

// Row `parity` of the two rows whose largest pixels are `winner`: their gradient. Columns 4 t and
// 4 t + 1 come from pixel 2 t, the other two from the next. Whole vectors are read.
inline void unpool_row(int width, int parity, const float *g, const uint8_t *winner, Phases &to) {
  const int first = 2 * parity;
#if defined(__AVX2__)
  for (int t = 0; 2 * t < width; t += 8) {
    const __m256 low = _mm256_loadu_ps(g + 2 * t), high = _mm256_loadu_ps(g + 2 * t + 8);
    const __m256 left = in_order(_mm256_shuffle_ps(low, high, 0x88));
    const __m256 right = in_order(_mm256_shuffle_ps(low, high, 0xdd));
    const __m128i both = _mm_loadu_si128(reinterpret_cast<const __m128i *>(winner + 2 * t));
    const __m256i of_left = _mm256_cvtepu16_epi32(_mm_and_si128(both, _mm_set1_epi16(255)));
    const __m256i of_right = _mm256_cvtepu16_epi32(_mm_srli_epi16(both, 8));
    _mm256_storeu_ps(to.of(0) + t, _mm256_and_ps(left, equal(of_left, first)));
    _mm256_storeu_ps(to.of(1) + t, _mm256_and_ps(left, equal(of_left, first + 1)));
    _mm256_storeu_ps(to.of(2) + t, _mm256_and_ps(right, equal(of_right, first)));
    _mm256_storeu_ps(to.of(3) + t, _mm256_and_ps(right, equal(of_right, first + 1)));
  }
#else
  for (int i = 0; i < width; i++)
    for (int k = 0; k < 2; k++)
      to.of(i % 2 * 2 + k)[i / 2] = winner[i] == first + k ? g[i] : 0.0f;
#endif
  to.end();
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

// The pooled map of one image in front of the norm; x is [inputs, height, width].
template <int TAPS>
void pooled_layer(const ImageLayer &layer, int height, int width, const float *x, float *before,
                  uint8_t *winner, Maps &maps) {
  const int half = width / 2;
  const long area = plane_area(height / 2, half);
  float *values = sized(maps.row, half);
  uint8_t *which = sized(maps.winners, half);
  Workspace &work = maps.work;
  const auto take = [&](int from, int to) {
    for (int c = 0; c < layer.outputs; c++)
      for (int row = from; row < to; row += 2) {
        for (int i = 0; i < 2; i++)
          row_of_outputs<TAPS>(work.output, c, row - from + i, work.results[i]);
        pool_rows(work.results[0], work.results[1], layer.bias[c], values, which);
        const long at = c * area + static_cast<long>(row / 2) * half;
        std::memcpy(before + at, values, half * 4);
        std::memcpy(winner + at, which, half);
      }
  };
  convolve<TAPS>(layer.inputs, layer.outputs, height, width, layer.kernel,
                 RowsOf{x, plane_area(height, width), width}, take, work);
  zero_rest(layer.outputs, static_cast<long>(height / 2) * half, area, before);
}

// g = dL/d(output) becomes dL/d(input) of one image, unless nobody wants that.
template <int TAPS>
void pooled_layer_backward(const ImageLayer &layer, long piece, int height, int width,
                           const float *x, const float *before, const uint8_t *winner, float *g,
                           float *dx, Maps &maps) {
  const int half = width / 2, C = layer.outputs;
  const long area = plane_area(height, width), small = plane_area(height / 2, half);
  norm_backward(layer, piece, small, before, g, maps);
  const auto gradient = [&](int c, int row, Phases &phases) {
    const long at = c * small + static_cast<long>(row / 2) * half;
    unpool_row(half, row % 2, g + at, winner + at, phases);
  };
  const long size = static_cast<long>(Points<TAPS>::COUNT) * layer.inputs * TAPS * grouped(C);
  convolve_backward<TAPS>(layer.inputs, C, height, width, RowsOf{x, area, width}, gradient,
                          layer.dkernel + piece * size, maps.work);
  if (!layer.transposed) return;
  convolve<TAPS>(C, layer.inputs, height, width, layer.transposed, gradient,
                 MapOf<TAPS>{layer.inputs, area, width, dx, maps}, maps.work);
  zero_rest(layer.inputs, static_cast<long>(height) * width, area, dx);
}

// Floats that the largest map of an image takes.
inline long most_floats(const ImageLayer *layers, int count, int height, int width, int scale) {
  long most = 0;
  for (int l = 0; l < count; l++) {
    const long in = layers[l].inputs * plane_area(height, width);
    height = scale > 1 ? height * 2 : height / 2;
    width = scale > 1 ? width * 2 : width / 2;
    const long out = layers[l].outputs * plane_area(height, width);
    most = in > most ? in : most;
    most = out > most ? out : most;
  }
  return most;
}

template <int TAPS>
void encode(const ImageLayer *layers, int count, int height, int width, long image,
            const uint8_t *bytes, float *features, Maps &maps) {
  const long most = most_floats(layers, count, height, width, 0);
  float *x = sized(maps.input, most);
  const int colours = layers[0].inputs;
  bytes_to_planes(colours, static_cast<long>(height) * width, plane_area(height, width),
                  bytes + image * height * width * colours, x);
  for (int l = 0; l < count; l++) {
    const ImageLayer &layer = layers[l];
    const int C = layer.outputs;
    const long area = plane_area(height / 2, width / 2), size = C * area;
    float *before = layer.before ? layer.before + image * size : sized(maps.before, size);
    uint8_t *winner = layer.before ? layer.winner + image * size : sized(maps.winner, size);
    pooled_layer<TAPS>(layer, height, width, x, before, winner, maps);
    norm_silu_planes(C, area, before, layer.gain, x);
    height /= 2;
    width /= 2;
  }
  const long pixels = static_cast<long>(height) * width;
  const int C = layers[count - 1].outputs;
  to_pixels(C, pixels, plane_area(height, width), x, features + image * pixels * C);
}

template <int TAPS>
void encode_backward(const ImageLayer *layers, int count, int height, int width, long piece,
                     long image, const uint8_t *bytes, const float *dfeatures, Maps &maps) {
  const long most = most_floats(layers, count, height, width, 0);
  float *x = sized(maps.input, most), *g = sized(maps.gradient, most), *dx = sized(maps.next, most);
  const int colours = layers[0].inputs, last = layers[count - 1].outputs;
  const long features = static_cast<long>(height >> count) * (width >> count);
  to_planes(last, features, plane_area(height >> count, width >> count),
            dfeatures + image * features * last, g);
  for (int l = count - 1; l >= 0; l--) {
    const ImageLayer &layer = layers[l];
    const int rows = height >> l, columns = width >> l;
    const long size = layer.outputs * plane_area(rows / 2, columns / 2);
    if (l > 0) {
      const long area = plane_area(rows, columns);
      norm_silu_planes(layer.inputs, area, layers[l - 1].before + image * layer.inputs * area,
                       layers[l - 1].gain, x);
    } else {
      bytes_to_planes(colours, static_cast<long>(rows) * columns, plane_area(rows, columns),
                      bytes + image * rows * columns * colours, x);
    }
    pooled_layer_backward<TAPS>(layer, piece, rows, columns, x, layer.before + image * size,
                                layer.winner + image * size, g, dx, maps);
    std::swap(g, dx);
  }
}

// -- decoder --------------------------------------------------------------------------------------

constexpr int UP_TAPS = 3;  // of the phases of 3x3 and 5x5 kernels

// The map of one image after the pixel shuffle, in front of the norm; x is [inputs, height, width].
// The convolution has four outputs for each channel, [2 rows, channel, 2 columns].
void shuffled_layer(const ImageLayer &layer, int height, int width, const float *x, float *before,
                    Maps &maps) {
  const int C = layer.outputs;
  const long area = plane_area(2 * height, 2 * width);
  const long line = TILE_COLUMNS * tiles(width) + OVERRUN;
  float *left = sized(maps.row, 2 * line), *right = left + line;
  Workspace &work = maps.work;
  const auto take = [&](int from, int end) {
    for (int k = 0; k < 2 * C; k++)
      for (int row = from; row < end; row++) {
        const int c = k % C, lower = k / C;
        for (int i = 0; i < 2; i++) {
          row_of_outputs<UP_TAPS>(work.output, 2 * k + i, row - from, work.results[i]);
          work.results[i].join(i ? right : left);
        }
        float *to = before + c * area + static_cast<long>(2 * row + lower) * 2 * width;
        const float bias = layer.bias[c];
#pragma omp simd
        for (int i = 0; i < width; i++) {
          to[2 * i] = left[i] + bias;
          to[2 * i + 1] = right[i] + bias;
        }
      }
  };
  convolve<UP_TAPS>(layer.inputs, 4 * C, height, width, layer.kernel,
                    RowsOf{x, plane_area(height, width), width}, take, work);
  zero_rest(C, 4l * height * width, area, before);
}

// g = dL/d(output) becomes dL/d(input) of one image.
void shuffled_layer_backward(const ImageLayer &layer, long piece, int height, int width,
                             const float *x, const float *before, float *g, float *dx, Maps &maps) {
  const int C = layer.outputs;
  const long area = plane_area(height, width), large = plane_area(2 * height, 2 * width);
  norm_backward(layer, piece, large, before, g, maps);
  float *line = sized(maps.row, width);
  const auto gradient = [&](int k, int row, Phases &phases) {
    const int c = k / 2 % C, lower = k / 2 / C;
    const float *from = g + c * large + static_cast<long>(2 * row + lower) * 2 * width + k % 2;
#pragma omp simd
    for (int i = 0; i < width; i++) line[i] = from[2 * i];
    phases.split(line);
  };
  const long size = static_cast<long>(Points<UP_TAPS>::COUNT) * layer.inputs * UP_TAPS * grouped(4 * C);
  convolve_backward<UP_TAPS>(layer.inputs, 4 * C, height, width, RowsOf{x, area, width}, gradient,
                          layer.dkernel + piece * size, maps.work);
  convolve<UP_TAPS>(4 * C, layer.inputs, height, width, layer.transposed, gradient,
                    MapOf<UP_TAPS>{layer.inputs, area, width, dx, maps}, maps.work);
  zero_rest(layer.inputs, static_cast<long>(height) * width, area, dx);
}

void decode(const ImageLayer *layers, int count, int height, int width, long image,
            const float *features, float *images, Maps &maps) {
  const long most = most_floats(layers, count, height, width, 2);
  float *x = sized(maps.input, most);
  const int inputs = layers[0].inputs;
  const long small = static_cast<long>(height) * width;
  to_planes(inputs, small, plane_area(height, width), features + image * small * inputs, x);
  for (int l = 0; l < count; l++) {
    const ImageLayer &layer = layers[l];
    const int C = layer.outputs;
    const long area = plane_area(2 * height, 2 * width), size = C * area;
    float *before = layer.before ? layer.before + image * size : sized(maps.before, size);
    shuffled_layer(layer, height, width, x, before, maps);
    height *= 2;
    width *= 2;
    if (layer.gain) {
      norm_silu_planes(C, area, before, layer.gain, x);
    } else {
      const long pixels = static_cast<long>(height) * width;
      to_pixels(C, pixels, area, before, images + image * pixels * C);
    }
  }
}

void decode_backward(const ImageLayer *layers, int count, int height, int width, long piece,
                     long image, const float *features, const float *dimages, float *dfeatures, Maps &maps) {
  const long most = most_floats(layers, count, height, width, 2);
  float *x = sized(maps.input, most), *g = sized(maps.gradient, most), *dx = sized(maps.next, most);
  const int inputs = layers[0].inputs, colours = layers[count - 1].outputs;
  const long small = static_cast<long>(height) * width, pixels = small << 2 * count;
  to_planes(colours, pixels, plane_area(height << count, width << count),
            dimages + image * pixels * colours, g);
  for (int l = count - 1; l >= 0; l--) {
    const ImageLayer &layer = layers[l];
    const int rows = height << l, columns = width << l;
    const long area = plane_area(rows, columns), large = plane_area(2 * rows, 2 * columns);
    if (l > 0)
      norm_silu_planes(layer.inputs, area, layers[l - 1].before + image * layer.inputs * area,
                       layers[l - 1].gain, x);
    else
      to_planes(inputs, small, area, features + image * small * inputs, x);
    const float *before = layer.gain ? layer.before + image * layer.outputs * large : nullptr;
    shuffled_layer_backward(layer, piece, rows, columns, x, before, g, dx, maps);
    std::swap(g, dx);
  }
  to_pixels(inputs, small, plane_area(height, width), g, dfeatures + image * small * inputs);
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

template <typename Work>
void with_taps(int taps, const Work &work) {
  if (taps == 3)
    work(std::integral_constant<int, 3>{});
  else
    work(std::integral_constant<int, 5>{});
}

}  // namespace

// bytes [images, height, width, colours] -> features [images, pixels, channels].
extern "C" void encode_images(const ImageLayer *layers, int count, int taps, int height, int width,
                              long images, const uint8_t *bytes, float *features, int threads) {
  with_taps(taps, [&](auto t) {
    for_images(images, images, threads, [&](long, long image, Maps &maps) {
      encode<decltype(t)::value>(layers, count, height, width, image, bytes, features, maps);
    });
  });
}

// Adds to the gradients of the parameters.
extern "C" void encode_images_backward(const ImageLayer *layers, int count, int taps, int height,
                                       int width, long images, const uint8_t *bytes,
                                       const float *dfeatures, long pieces, int threads) {
  with_taps(taps, [&](auto t) {
    for_images(images, pieces, threads, [&](long piece, long image, Maps &maps) {
      encode_backward<decltype(t)::value>(layers, count, height, width, piece, image, bytes,
                                          dfeatures, maps);
    });
  });
}

// features [images, height, width, channels] -> images [images, height << count, width << count,
// colours].
extern "C" void decode_images(const ImageLayer *layers, int count, int height, int width,
                              long images, const float *features, float *out, int threads) {
  for_images(images, images, threads, [&](long, long image, Maps &maps) {
    decode(layers, count, height, width, image, features, out, maps);
  });
}

// Adds to the gradients of the parameters; dfeatures = dL/dfeatures.
extern "C" void decode_images_backward(const ImageLayer *layers, int count, int height, int width,
                                       long images, const float *features, const float *dimages,
                                       float *dfeatures, long pieces, int threads) {
  for_images(images, pieces, threads, [&](long piece, long image, Maps &maps) {
    decode_backward(layers, count, height, width, piece, image, features, dimages, dfeatures, maps);
  });
}
