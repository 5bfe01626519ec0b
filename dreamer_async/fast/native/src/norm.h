// RMSNorm and SiLU of rows of C numbers, and back.

#pragma once

#include <cmath>

#include "vectors.h"

namespace {

constexpr float EPS = 1e-4f;  // of RMSNorm

inline float inverse_rms(int C, const float *x) {
  vec even{}, odd{};
  int c = 0;
  for (; c + 2 * LANES <= C; c += 2 * LANES) {
    const vec a = load_vec(x + c), b = load_vec(x + c + LANES);
    even += a * a;
    odd += b * b;
  }
  float squares = horizontal_sum(even + odd);
  for (; c < C; c++) squares += x[c] * x[c];
  return 1.0f / std::sqrt(squares / static_cast<float>(C) + EPS);
}

// y = SiLU(x / rms(x) * gain) of one row; y may be x.
inline void norm_silu(int C, const float *x, const float *gain, float *y) {
  const float inverse = inverse_rms(C, x);
  int c = 0;
  for (; c + LANES <= C; c += LANES) {
    const vec h = load_vec(x + c) * inverse * load_vec(gain + c);
    store_vec(y + c, h * sigmoid(h));
  }
  for (; c < C; c++) {
    const float h = x[c] * inverse * gain[c];
    y[c] = h * sigmoid(h);
  }
}

// g = dL/dy becomes dL/dx; dL/dgain is added to.
inline void norm_silu_backward(int C, const float *x, const float *gain, float *g, float *dgain) {
  const float inverse = inverse_rms(C, x);
  vec dots{};
  int c = 0;
  for (; c + LANES <= C; c += LANES) {
    const vec n = load_vec(x + c) * inverse, scale = load_vec(gain + c), h = n * scale;
    const vec s = sigmoid(h), dh = load_vec(g + c) * s * (1.0f + h * (1.0f - s));
    store_vec(dgain + c, load_vec(dgain + c) + dh * n);
    const vec dn = dh * scale;
    store_vec(g + c, dn);
    dots += dn * n;
  }
  float dot = horizontal_sum(dots);
  for (; c < C; c++) {
    const float n = x[c] * inverse, h = n * gain[c], s = sigmoid(h);
    const float dh = g[c] * s * (1.0f + h * (1.0f - s));
    dgain[c] += dh * n;
    g[c] = dh * gain[c];
    dot += g[c] * n;
  }
  dot *= inverse / static_cast<float>(C);
#pragma omp simd
  for (c = 0; c < C; c++) g[c] = inverse * (g[c] - x[c] * dot);
}

}  // namespace
