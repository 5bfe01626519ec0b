// Winograd's minimal convolutions F(4x4, 3x3) and F(4x4, 5x5): tiles of 4x4 outputs, and their
// transforms.
//
//   Y = A^T [(G g G^T) * (B^T d B)] A      d: what a tile reads, g: the kernel, *: number by number
//
// Four outputs of `taps` taps take ALPHA = `taps` + 3 products instead of 4 `taps`: values of
// polynomials are multiplied at ALPHA points (Toom and Cook), 0, 1, -1, 2, -2, (1/2, -1/2) and
// infinity. Done along columns and rows, 16 outputs take 36 products instead of 144 (3x3), or 64
// instead of 400 (5x5). G is in `images.py`, since kernels are transformed once per update.

#pragma once

#include "../vectors.h"

namespace {

constexpr int TILE = 4;  // outputs of a tile along one direction

inline int tiles(int width) { return (width + TILE - 1) / TILE; }

// The transforms along one direction: B^T of what a tile reads, A^T to its four outputs, and
// backward their transposes, A from the gradient of four outputs and B to that of what the tile had
// read.
template <int TAPS>
struct Winograd;

template <>
struct Winograd<3> {
  static constexpr int ALPHA = 6;

  static inline void input_transform(const vec *d, vec *f) {
    const vec a = d[4] - 4.0f * d[2], b = d[3] - 4.0f * d[1];
    const vec c = d[4] - d[2], e = 2.0f * (d[3] - d[1]);
    f[0] = 4.0f * d[0] - 5.0f * d[2] + d[4];
    f[1] = a + b;
    f[2] = a - b;
    f[3] = c + e;
    f[4] = c - e;
    f[5] = 4.0f * d[1] - 5.0f * d[3] + d[5];
  }

  static inline void output_transform(const vec *f, vec *y) {
    const vec a = f[1] + f[2], b = f[1] - f[2], c = f[3] + f[4], e = f[3] - f[4];
    y[0] = f[0] + a + c;
    y[1] = b + 2.0f * e;
    y[2] = a + 4.0f * c;
    y[3] = b + 8.0f * e + f[5];
  }

  static inline void output_transform_backward(const vec *y, vec *f) {
    const vec a = y[0] + y[2], b = y[1] + y[3];
    const vec c = y[0] + 4.0f * y[2], e = 2.0f * y[1] + 8.0f * y[3];
    f[0] = y[0];
    f[1] = a + b;
    f[2] = a - b;
    f[3] = c + e;
    f[4] = c - e;
    f[5] = y[3];
  }

  static inline void input_transform_backward(const vec *f, vec *d) {
    const vec a = f[1] + f[2], b = f[1] - f[2], c = f[3] + f[4], e = f[3] - f[4];
    d[0] = 4.0f * f[0];
    d[1] = 4.0f * (f[5] - b) - 2.0f * e;
    d[2] = -5.0f * f[0] - 4.0f * a - c;
    d[3] = b + 2.0f * e - 5.0f * f[5];
    d[4] = f[0] + a + c;
    d[5] = f[5];
  }
};

template <>
struct Winograd<5> {
  static constexpr int ALPHA = 8;

  static inline void input_transform(const vec *d, vec *f) {
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

  static inline void output_transform(const vec *f, vec *y) {
    const vec a = f[1] + f[2], b = f[1] - f[2], c = f[3] + f[4], e = f[3] - f[4];
    const vec g = f[5] + f[6], h = f[5] - f[6];
    y[0] = f[0] + a + c + 8.0f * g;
    y[1] = b + 2.0f * e + 4.0f * h;
    y[2] = a + 4.0f * c + 2.0f * g;
    y[3] = b + 8.0f * e + h + f[7];
  }

  static inline void output_transform_backward(const vec *y, vec *f) {
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

  static inline void input_transform_backward(const vec *f, vec *d) {
    const vec a = f[1] + f[2], b = f[1] - f[2], c = f[3] + f[4], e = f[3] - f[4];
    const vec g = f[5] + f[6], h = f[5] - f[6];
    d[0] = f[0];
    d[1] = b + 0.5f * e + 2.0f * h - f[7];
    d[2] = a + 0.25f * c + 4.0f * g - 5.25f * f[0];
    d[3] = 5.25f * f[7] - 4.25f * b - 2.5f * (e + h);
    d[4] = 5.25f * f[0] - 4.25f * a - 1.25f * c - 5.0f * g;
    d[5] = b + 2.0f * e + 0.5f * h - 5.25f * f[7];
    d[6] = a + c + g - f[0];
    d[7] = f[7];
  }
};

}  // namespace
