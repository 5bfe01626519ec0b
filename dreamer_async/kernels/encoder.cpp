// The convolutional encoder: convolution, pooling, RMSNorm and SiLU, layer by layer.

#include "images.h"

namespace {

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
                           const float *x, const float *before, const uint8_t *winner,
                           const float *slope, float *g, float *dx, Maps &maps) {
  const int half = width / 2, C = layer.outputs;
  const long area = plane_area(height, width), small = plane_area(height / 2, half);
  norm_backward(layer, piece, small, before, slope, g, maps);
  const auto gradient = [&](int c, int row, Phases &phases) {
    const long at = c * small + static_cast<long>(row / 2) * half;
    unpool_row(half, row % 2, g + at, winner + at, phases);
  };
  const long size = static_cast<long>(Points<TAPS>::COUNT) * layer.inputs * TAPS * padded(C);
  convolve_backward<TAPS>(layer.inputs, C, height, width, layer.turned, RowsOf{x, area, width},
                          gradient, layer.dkernel + piece * size,
                          MapOf<TAPS>{layer.inputs, area, width, dx, maps}, maps.work);
  if (layer.turned)
    zero_rest(layer.inputs, static_cast<long>(height) * width, area, dx);
}

template <int TAPS>
void encode(const ImageLayer *layers, int count, int height, int width, long image,
            const uint8_t *bytes, float *features, Maps &maps) {
  const long most = most_floats(layers, count, height, width, false);
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
    norm_silu_planes<false>(C, area, before, layer.gain, x);
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
  const long most = most_floats(layers, count, height, width, false);
  float *x = sized(maps.input, most), *g = sized(maps.gradient, most), *dx = sized(maps.next, most);
  float *slope = sized(maps.slope, most), *below = sized(maps.below, most);
  const int colours = layers[0].inputs, last = layers[count - 1].outputs;
  const long features = static_cast<long>(height >> count) * (width >> count);
  to_planes(last, features, plane_area(height >> count, width >> count),
            dfeatures + image * features * last, g);
  const long area = plane_area(height >> count, width >> count);
  norm_silu_planes<true>(last, area, layers[count - 1].before + image * last * area,
                         layers[count - 1].gain, x, slope);
  for (int l = count - 1; l >= 0; l--) {
    const ImageLayer &layer = layers[l];
    const int rows = height >> l, columns = width >> l;
    const long size = layer.outputs * plane_area(rows / 2, columns / 2);
    if (l > 0) {
      const long area = plane_area(rows, columns);
      norm_silu_planes<true>(layer.inputs, area, layers[l - 1].before + image * layer.inputs * area,
                             layers[l - 1].gain, x, below);
    } else {
      bytes_to_planes(colours, static_cast<long>(rows) * columns, plane_area(rows, columns),
                      bytes + image * rows * columns * colours, x);
    }
    pooled_layer_backward<TAPS>(layer, piece, rows, columns, x, layer.before + image * size,
                                layer.winner + image * size, slope, g, dx, maps);
    std::swap(g, dx);
    std::swap(slope, below);
  }
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
