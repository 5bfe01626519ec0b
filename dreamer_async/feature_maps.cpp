// RMSNorm and SiLU of feature maps with few channels, after pooling or before a pixel shuffle.
//
// These maps are far larger than the caches, and layer by layer PyTorch passes over them about ten
// times. Here a tile of pixels is read once, stays in the first cache until it is done, and is
// written once.
//
// Maps are dense NHWC. `rows` counts the rows of pixels of the small map over all images, so that
// any range of rows is a task of its own. Whatever the maps hold, the arithmetic is in float.
//
//   pool     large [2 rows, 2 width, C] -> small [rows, width, C]: the maximum of 2x2 pixels (of
//            equal ones the first in reading order, like PyTorch), then norm and SiLU.
//   shuffle  small [rows, width, 2, 2, C] -> large [2 rows, 2 width, C]: norm and SiLU, and the
//            four phases of a pixel go to their places.

#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

constexpr float EPS = 1e-4f;
constexpr int TILE = 4096;  // floats; the caller checks that C is not larger

struct bf16 {
  uint16_t bits;
};

inline float load(float x) { return x; }

inline float load(bf16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float y;
  std::memcpy(&y, &bits, 4);
  return y;
}

inline void store(float &to, float x) { to = x; }

inline void store(bf16 &to, float x) {  // to the nearest, ties to even; NaN stays NaN
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  to.bits = static_cast<uint16_t>(x == x ? rounded : 0x7fc0u);
}

// exp to about 2 units in the last place, without a call, so that loops over it become vectors.
inline float exponential(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const float n = std::nearbyint(x * 1.44269504f);
  const float r = x - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const uint32_t bits = static_cast<uint32_t>(static_cast<int32_t>(n) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, 4);
  return p * power;
}

inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

// h = x / rms(x) * scale of each pixel; also 1 / rms.
inline void normalise(int pixels, int C, const float *x, const float *scale, float *h,
                      float *inverse) {
  for (int i = 0; i < pixels; i++) {
    const float *xi = x + i * C;
    float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
    for (int c = 0; c < C; c++) squares += xi[c] * xi[c];
    inverse[i] = 1.0f / std::sqrt(squares / static_cast<float>(C) + EPS);
#pragma omp simd
    for (int c = 0; c < C; c++) h[i * C + c] = xi[c] * inverse[i] * scale[c];
  }
}

// x becomes SiLU(norm(x)).
inline void forward_tile(int pixels, int C, float *x, const float *scale) {
  float h[TILE], inverse[TILE];
  normalise(pixels, C, x, scale, h, inverse);
#pragma omp simd
  for (int k = 0; k < pixels * C; k++) x[k] = h[k] * sigmoid(h[k]);
}

// g = dL/dy becomes dL/dx; dL/dscale is added to.
inline void backward_tile(int pixels, int C, const float *x, float *g, const float *scale,
                          float *dscale) {
  float h[TILE], inverse[TILE];
  normalise(pixels, C, x, scale, h, inverse);
#pragma omp simd
  for (int k = 0; k < pixels * C; k++) {
    const float s = sigmoid(h[k]);
    g[k] *= s * (1.0f + h[k] * (1.0f - s));
  }
  for (int i = 0; i < pixels; i++) {
    const float *xi = x + i * C;
    float *gi = g + i * C;
    const float r = inverse[i];
    float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
    for (int c = 0; c < C; c++) {
      dscale[c] += gi[c] * xi[c] * r;
      gi[c] *= scale[c];
      dot += gi[c] * xi[c];
    }
    dot *= r * r / static_cast<float>(C);
#pragma omp simd
    for (int c = 0; c < C; c++) gi[c] = r * (gi[c] - xi[c] * dot);
  }
}

// Pixels of the next tile of a row.
inline int tile(long start, long width, int C) {
  const long most = TILE / C;
  return static_cast<int>(width - start < most ? width - start : most);
}

// Below, FIXED is the number of channels where the compiler is to know it, or 0.

template <int FIXED, typename T>
void pool_forward(int channels, long rows, long width, const T *large, const float *scale, T *kept,
                  uint8_t *winner, T *small) {
  const int C = FIXED ? FIXED : channels;
  float x[TILE];
  int32_t of[TILE];
  for (long row = 0; row < rows; row++) {
    const T *top = large + row * 4 * width * C, *bottom = top + 2 * width * C;
    for (long start = 0; start < width; start += TILE / C) {
      const int pixels = tile(start, width, C);
      const long at = (row * width + start) * C;
      for (int i = 0; i < pixels; i++) {
        const T *a = top + 2 * (start + i) * C, *b = bottom + 2 * (start + i) * C;
#pragma omp simd
        for (int c = 0; c < C; c++) {
          const float values[4] = {load(a[c]), load(a[C + c]), load(b[c]), load(b[C + c])};
          float most = values[0];
          int32_t which = 0;
          for (int32_t k = 1; k < 4; k++) {
            which = values[k] > most ? k : which;
            most = values[k] > most ? values[k] : most;
          }
          x[i * C + c] = most;
          of[i * C + c] = which;
        }
      }
#pragma omp simd
      for (int k = 0; k < pixels * C; k++) {
        store(kept[at + k], x[k]);
        winner[at + k] = static_cast<uint8_t>(of[k]);
      }
      forward_tile(pixels, C, x, scale);
#pragma omp simd
      for (int k = 0; k < pixels * C; k++) store(small[at + k], x[k]);
    }
  }
}

template <int FIXED, typename T>
void pool_backward(int channels, long rows, long width, const T *kept, const uint8_t *winner,
                   const float *scale, const T *dsmall, T *dlarge, float *dscale) {
  const int C = FIXED ? FIXED : channels;
  float x[TILE], g[TILE];
  int32_t of[TILE];
  for (long row = 0; row < rows; row++) {
    T *top = dlarge + row * 4 * width * C, *bottom = top + 2 * width * C;
    for (long start = 0; start < width; start += TILE / C) {
      const int pixels = tile(start, width, C);
      const long at = (row * width + start) * C;
#pragma omp simd
      for (int k = 0; k < pixels * C; k++) {
        x[k] = load(kept[at + k]);
        g[k] = load(dsmall[at + k]);
        of[k] = winner[at + k];
      }
      backward_tile(pixels, C, x, g, scale, dscale);
      for (int i = 0; i < pixels; i++) {
        T *a = top + 2 * (start + i) * C, *b = bottom + 2 * (start + i) * C;
#pragma omp simd
        for (int c = 0; c < C; c++) {
          const int32_t which = of[i * C + c];
          const float value = g[i * C + c];
          store(a[c], which == 0 ? value : 0.0f);
          store(a[C + c], which == 1 ? value : 0.0f);
          store(b[c], which == 2 ? value : 0.0f);
          store(b[C + c], which == 3 ? value : 0.0f);
        }
      }
    }
  }
}

// Where pixel `i` of a line of the large map is in the small one, from the line's first phase on.
inline long phase(long i, int C) { return (i / 2 * 4 + i % 2) * C; }

// The first phase of a line of the large map in the small one.
inline long line_start(long line, long width, int C) {
  return (line / 2 * 4 * width + line % 2 * 2) * C;
}

// Pixels of a line of the large map, from `start` on, as they lie in the small one.
template <typename T>
inline void load_phases(int pixels, int C, long start, const T *from, float *x) {
  for (int i = 0; i < pixels; i++) {
    const T *at = from + phase(start + i, C);
#pragma omp simd
    for (int c = 0; c < C; c++) x[i * C + c] = load(at[c]);
  }
}

template <int FIXED, typename T>
void shuffle_forward(int channels, long rows, long width, const T *small, const float *scale,
                     T *large) {
  const int C = FIXED ? FIXED : channels;
  float x[TILE];
  for (long line = 0; line < 2 * rows; line++) {
    const T *from = small + line_start(line, width, C);
    T *to = large + line * 2 * width * C;
    for (long start = 0; start < 2 * width; start += TILE / C) {
      const int pixels = tile(start, 2 * width, C);
      load_phases(pixels, C, start, from, x);
      forward_tile(pixels, C, x, scale);
#pragma omp simd
      for (int k = 0; k < pixels * C; k++) store(to[start * C + k], x[k]);
    }
  }
}

template <int FIXED, typename T>
void shuffle_backward(int channels, long rows, long width, const T *small, const float *scale,
                      const T *dlarge, T *dsmall, float *dscale) {
  const int C = FIXED ? FIXED : channels;
  float x[TILE], g[TILE];
  for (long line = 0; line < 2 * rows; line++) {
    const T *from = small + line_start(line, width, C);
    T *to = dsmall + line_start(line, width, C);
    const T *given = dlarge + line * 2 * width * C;
    for (long start = 0; start < 2 * width; start += TILE / C) {
      const int pixels = tile(start, 2 * width, C);
      load_phases(pixels, C, start, from, x);
#pragma omp simd
      for (int k = 0; k < pixels * C; k++) g[k] = load(given[start * C + k]);
      backward_tile(pixels, C, x, g, scale, dscale);
      for (int i = 0; i < pixels; i++) {
        T *at = to + phase(start + i, C);
#pragma omp simd
        for (int c = 0; c < C; c++) store(at[c], g[i * C + c]);
      }
    }
  }
}

}  // namespace

// The channels of the smallest size are known to the compiler: loops of 8 to 16 gain by it.
#define EXPORT(name, T, parameters, ...)                 \
  extern "C" void name##_##T parameters {                \
    switch (C) {                                         \
      case 8: return name<8, T>(C, rows, width, __VA_ARGS__);   \
      case 12: return name<12, T>(C, rows, width, __VA_ARGS__); \
      case 16: return name<16, T>(C, rows, width, __VA_ARGS__); \
      default: return name<0, T>(C, rows, width, __VA_ARGS__);  \
    }                                                    \
  }

#define EXPORT_ALL(T)                                                                          \
  EXPORT(pool_forward, T,                                                                      \
         (int C, long rows, long width, const T *large, const float *scale, T *kept,           \
          uint8_t *winner, T *small),                                                          \
         large, scale, kept, winner, small)                                                    \
  EXPORT(pool_backward, T,                                                                     \
         (int C, long rows, long width, const T *kept, const uint8_t *winner,                  \
          const float *scale, const T *dsmall, T *dlarge, float *dscale),                      \
         kept, winner, scale, dsmall, dlarge, dscale)                                          \
  EXPORT(shuffle_forward, T,                                                                   \
         (int C, long rows, long width, const T *small, const float *scale, T *large),         \
         small, scale, large)                                                                  \
  EXPORT(shuffle_backward, T,                                                                  \
         (int C, long rows, long width, const T *small, const float *scale, const T *dlarge,   \
          T *dsmall, float *dscale),                                                           \
         small, scale, dlarge, dsmall, dscale)

EXPORT_ALL(float)
EXPORT_ALL(bf16)
