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

#include <cstdint>
#include <cstring>

#include "../norm.h"
#include "../threads.h"

namespace {

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

constexpr int TILE_FLOATS = 4096;  // floats; the caller checks that C is not larger

// h = x / rms(x) * scale of each pixel; also 1 / rms.
inline void normalise(int pixels, int C, const float *x, const float *scale, float *h,
                      float *inverse) {
  for (int i = 0; i < pixels; i++) {
    const float *xi = x + i * C;
    inverse[i] = inverse_rms(C, xi);
#pragma omp simd
    for (int c = 0; c < C; c++) h[i * C + c] = xi[c] * inverse[i] * scale[c];
  }
}

// x becomes SiLU(norm(x)).
inline void forward_tile(int pixels, int C, float *x, const float *scale) {
  float h[TILE_FLOATS], inverse[TILE_FLOATS];
  normalise(pixels, C, x, scale, h, inverse);
#pragma omp simd
  for (int k = 0; k < pixels * C; k++) x[k] = h[k] * sigmoid(h[k]);
}

// g = dL/dy becomes dL/dx; dL/dscale is added to.
inline void backward_tile(int pixels, int C, const float *x, float *g, const float *scale,
                          float *dscale) {
  float h[TILE_FLOATS], inverse[TILE_FLOATS];
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
inline int tile_pixels(long start, long width, int C) {
  const long most = TILE_FLOATS / C;
  return static_cast<int>(width - start < most ? width - start : most);
}

// Below, FIXED is the number of channels where the compiler is to know it, or 0.

template <int FIXED, typename T>
void pool_forward(int channels, long rows, long width, const T *large, const float *scale,
                  T *pooled, uint8_t *winner, T *small) {
  const int C = FIXED ? FIXED : channels;
  float x[TILE_FLOATS];
  int32_t of[TILE_FLOATS];
  for (long row = 0; row < rows; row++) {
    const T *top = large + row * 4 * width * C, *bottom = top + 2 * width * C;
    for (long start = 0; start < width; start += TILE_FLOATS / C) {
      const int pixels = tile_pixels(start, width, C);
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
        store(pooled[at + k], x[k]);
        winner[at + k] = static_cast<uint8_t>(of[k]);
      }
      forward_tile(pixels, C, x, scale);
#pragma omp simd
      for (int k = 0; k < pixels * C; k++) store(small[at + k], x[k]);
    }
  }
}

template <int FIXED, typename T>
void pool_backward(int channels, long rows, long width, const T *pooled, const uint8_t *winner,
                   const float *scale, const T *dsmall, T *dlarge, float *dscale) {
  const int C = FIXED ? FIXED : channels;
  float x[TILE_FLOATS], g[TILE_FLOATS];
  int32_t of[TILE_FLOATS];
  for (long row = 0; row < rows; row++) {
    T *top = dlarge + row * 4 * width * C, *bottom = top + 2 * width * C;
    for (long start = 0; start < width; start += TILE_FLOATS / C) {
      const int pixels = tile_pixels(start, width, C);
      const long at = (row * width + start) * C;
#pragma omp simd
      for (int k = 0; k < pixels * C; k++) {
        x[k] = load(pooled[at + k]);
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
  float x[TILE_FLOATS];
  for (long line = 0; line < 2 * rows; line++) {
    const T *from = small + line_start(line, width, C);
    T *to = large + line * 2 * width * C;
    for (long start = 0; start < 2 * width; start += TILE_FLOATS / C) {
      const int pixels = tile_pixels(start, 2 * width, C);
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
  float x[TILE_FLOATS], g[TILE_FLOATS];
  for (long line = 0; line < 2 * rows; line++) {
    const T *from = small + line_start(line, width, C);
    T *to = dsmall + line_start(line, width, C);
    const T *given = dlarge + line * 2 * width * C;
    for (long start = 0; start < 2 * width; start += TILE_FLOATS / C) {
      const int pixels = tile_pixels(start, 2 * width, C);
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

// Below, `rows` is cut into pieces; each adds to a gain of its own, dscale [pieces, C]. The channels
// of the smallest size are known to the compiler: loops of 8 to 16 gain by it.

#define PIECE \
  const long first = rows * i / pieces, count = rows * (i + 1) / pieces - first, small_at = first * width * C
#define CALL(name, ...)                                    \
  switch (C) {                                             \
    case 8: return name<8>(C, count, width, __VA_ARGS__);   \
    case 12: return name<12>(C, count, width, __VA_ARGS__); \
    case 16: return name<16>(C, count, width, __VA_ARGS__); \
    default: return name<0>(C, count, width, __VA_ARGS__);  \
  }

#define EXPORT_ALL(T)                                                                             \
  extern "C" void pool_forward_##T(int C, long rows, long width, const T *large,                  \
                                   const float *scale, T *pooled, uint8_t *winner, T *small,      \
                                   long pieces, int threads) {                                    \
    parallel_for(pieces, threads, [&](long i) {                                                   \
      PIECE;                                                                                      \
      CALL(pool_forward, large + 4 * small_at, scale, pooled + small_at, winner + small_at,       \
           small + small_at)                                                                      \
    });                                                                                           \
  }                                                                                               \
  extern "C" void pool_backward_##T(int C, long rows, long width, const T *pooled,                \
                                    const uint8_t *winner, const float *scale, const T *dsmall,   \
                                    T *dlarge, float *dscale, long pieces, int threads) {         \
    parallel_for(pieces, threads, [&](long i) {                                                   \
      PIECE;                                                                                      \
      CALL(pool_backward, pooled + small_at, winner + small_at, scale, dsmall + small_at,         \
           dlarge + 4 * small_at, dscale + i * C)                                                 \
    });                                                                                           \
  }                                                                                               \
  extern "C" void shuffle_forward_##T(int C, long rows, long width, const T *small,               \
                                      const float *scale, T *large, long pieces, int threads) {   \
    parallel_for(pieces, threads, [&](long i) {                                                   \
      PIECE;                                                                                      \
      CALL(shuffle_forward, small + 4 * small_at, scale, large + 4 * small_at)                    \
    });                                                                                           \
  }                                                                                               \
  extern "C" void shuffle_backward_##T(int C, long rows, long width, const T *small,              \
                                       const float *scale, const T *dlarge, T *dsmall,            \
                                       float *dscale, long pieces, int threads) {                 \
    parallel_for(pieces, threads, [&](long i) {                                                   \
      PIECE;                                                                                      \
      CALL(shuffle_backward, small + 4 * small_at, scale, dlarge + 4 * small_at,                  \
           dsmall + 4 * small_at, dscale + i * C)                                                 \
    });                                                                                           \
  }

EXPORT_ALL(float)
EXPORT_ALL(bf16)
