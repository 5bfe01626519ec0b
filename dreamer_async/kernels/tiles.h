// Rows of an image in tiles of four columns, and their transforms.
//
// Four outputs of `taps` taps each take `taps` + 3 products instead of 4 `taps` (Winograd; Toom and
// Cook): values of polynomials are multiplied at `taps` + 3 points, 0, 1, -1, 2, -2, (1/2, -1/2)
// and infinity. In float32 the error grows from 3e-7 to 6e-7 of the result.

#pragma once

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <vector>

#include "arithmetic.h"

namespace {

constexpr int TILE_COLUMNS = 4;

inline int tiles(int width) { return (width + TILE_COLUMNS - 1) / TILE_COLUMNS; }

// The three transforms of a tile: `window` of the columns that it reads, `outputs` back to its four
// columns, and `columns` of four columns for the gradient of the kernel.
template <int TAPS>
struct Points;

template <>
struct Points<3> {
  static constexpr int COUNT = 6;

  static inline void window(const vec *d, vec *f) {
    const vec a = d[4] - 4.0f * d[2], b = d[3] - 4.0f * d[1];
    const vec c = d[4] - d[2], e = 2.0f * (d[3] - d[1]);
    f[0] = 4.0f * d[0] - 5.0f * d[2] + d[4];
    f[1] = a + b;
    f[2] = a - b;
    f[3] = c + e;
    f[4] = c - e;
    f[5] = 4.0f * d[1] - 5.0f * d[3] + d[5];
  }

  static inline void outputs(const vec *f, vec *y) {
    const vec a = f[1] + f[2], b = f[1] - f[2], c = f[3] + f[4], e = f[3] - f[4];
    y[0] = f[0] + a + c;
    y[1] = b + 2.0f * e;
    y[2] = a + 4.0f * c;
    y[3] = b + 8.0f * e + f[5];
  }

  static inline void columns(const vec *y, vec *f) {
    const vec a = y[0] + y[2], b = y[1] + y[3];
    const vec c = y[0] + 4.0f * y[2], e = 2.0f * y[1] + 8.0f * y[3];
    f[0] = y[0];
    f[1] = a + b;
    f[2] = a - b;
    f[3] = c + e;
    f[4] = c - e;
    f[5] = y[3];
  }
};

template <>
struct Points<5> {
  static constexpr int COUNT = 8;

  static inline void window(const vec *d, vec *f) {
    const vec a = d[2] + d[6] - 4.25f * d[4], b = d[1] + d[5] - 4.25f * d[3];
    const vec c = d[6] + 0.25f * d[2] - 1.25f * d[4], e = 0.5f * d[1] - 2.5f * d[3] + 2.0f * d[5];
    const vec g = d[6] + 4.0f * d[2] - 5.0f * d[4], h = 2.0f * d[1] - 2.5f * d[3] + 0.5f * d[5];
    f[0] = d[0] - d[6] + 5.25f * (d[4] - d[2]);
    f[1] = a + b;
    f[2] = a - b;
    f[3] = c + e;
    f[4] = c - e;
    f[5] = g + h;
    f[6] = g - h;
    f[7] = d[7] - d[1] + 5.25f * (d[3] - d[5]);
  }

  static inline void outputs(const vec *f, vec *y) {
    const vec a = f[1] + f[2], b = f[1] - f[2], c = f[3] + f[4], e = f[3] - f[4];
    const vec g = f[5] + f[6], h = f[5] - f[6];
    y[0] = f[0] + a + c + 8.0f * g;
    y[1] = b + 2.0f * e + 4.0f * h;
    y[2] = a + 4.0f * c + 2.0f * g;
    y[3] = b + 8.0f * e + h + f[7];
  }

  static inline void columns(const vec *y, vec *f) {
    const vec a = y[0] + y[2], b = y[1] + y[3];
    const vec c = y[0] + 4.0f * y[2], e = 2.0f * y[1] + 8.0f * y[3];
    const vec g = 8.0f * y[0] + 2.0f * y[2], h = 4.0f * y[1] + y[3];
    f[0] = y[0];
    f[1] = a + b;
    f[2] = a - b;
    f[3] = c + e;
    f[4] = c - e;
    f[5] = g + h;
    f[6] = g - h;
    f[7] = y[3];
  }
};

#if defined(__AVX2__)
// 4x4 numbers in either half of four vectors change places.
inline void transpose(__m256 *x) {
  const __m256 a = _mm256_unpacklo_ps(x[0], x[1]), b = _mm256_unpackhi_ps(x[0], x[1]);
  const __m256 c = _mm256_unpacklo_ps(x[2], x[3]), d = _mm256_unpackhi_ps(x[2], x[3]);
  x[0] = _mm256_shuffle_ps(a, c, 0x44);
  x[1] = _mm256_shuffle_ps(a, c, 0xee);
  x[2] = _mm256_shuffle_ps(b, d, 0x44);
  x[3] = _mm256_shuffle_ps(b, d, 0xee);
}
#endif

// A row by columns modulo four, [4, line], with a tile of zeros on either side. Whole vectors are
// read and written: rows must lie in front of OVERRUN other floats.
constexpr int OVERRUN = 32;

struct Phases {
  int width = 0, count = 0;
  long line = 0;
  std::vector<float> memory;

  void shape(int of_width) {
    if (width == of_width) return;
    width = of_width;
    count = tiles(width);
    line = count + 2 + 2 * LANES;
    memory.assign(TILE_COLUMNS * line, 0.0f);
  }

  float *of(int phase) { return memory.data() + phase * line + 1; }

  // Zeros behind the row again.
  void end() {
    for (int i = width; i < TILE_COLUMNS * count; i++) of(i % TILE_COLUMNS)[count - 1] = 0.0f;
    for (int i = 0; i < TILE_COLUMNS; i++) store_vec(of(i) + count, vec{});
  }

  void split(const float *row) {
    for (int t = 0; t < count; t += 8) {
      const float *from = row + TILE_COLUMNS * t;
#if defined(__AVX2__)
      __m256 x[4];
      for (int i = 0; i < 4; i++)
        x[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from + 4 * i)),
                                    _mm_loadu_ps(from + 4 * i + 16), 1);
      transpose(x);
      for (int i = 0; i < 4; i++) _mm256_storeu_ps(of(i) + t, x[i]);
#else
      for (int i = 0; i < 4; i++)
        for (int k = 0; k < 8; k++) of(i)[t + k] = from[4 * k + i];
#endif
    }
    end();
  }

  void join(float *row) {
    for (int t = 0; t < count; t += 8) {
      float *to = row + TILE_COLUMNS * t;
#if defined(__AVX2__)
      __m256 x[4];
      for (int i = 0; i < 4; i++) x[i] = _mm256_loadu_ps(of(i) + t);
      transpose(x);
      for (int i = 0; i < 4; i++) {
        _mm_storeu_ps(to + 4 * i, _mm256_castps256_ps128(x[i]));
        _mm_storeu_ps(to + 4 * i + 16, _mm256_extractf128_ps(x[i], 1));
      }
#else
      for (int i = 0; i < 4; i++)
        for (int k = 0; k < 8; k++) to[4 * k + i] = of(i)[t + k];
#endif
    }
  }
};

// Transforms of LANES tiles from tile `t` on, to places `step` apart.
template <int TAPS>
struct Window {
  void operator()(Phases &phases, int t, float *to, long step) const {
    constexpr int COUNT = Points<TAPS>::COUNT, HALF = TAPS / 2;
    vec d[COUNT], f[COUNT];
    for (int j = 0; j < COUNT; j++) {
      const int column = j - HALF + TILE_COLUMNS;  // seen from the tile before
      d[j] = load_vec(phases.of(column % TILE_COLUMNS) + t + column / TILE_COLUMNS - 1);
    }
    Points<TAPS>::window(d, f);
    for (int i = 0; i < COUNT; i++) store_vec(to + i * step, f[i]);
  }
};

template <int TAPS>
struct Columns {
  void operator()(Phases &phases, int t, float *to, long step) const {
    constexpr int COUNT = Points<TAPS>::COUNT;
    vec y[TILE_COLUMNS], f[COUNT];
    for (int j = 0; j < TILE_COLUMNS; j++) y[j] = load_vec(phases.of(j) + t);
    Points<TAPS>::columns(y, f);
    for (int i = 0; i < COUNT; i++) store_vec(to + i * step, f[i]);
  }
};

}  // namespace
