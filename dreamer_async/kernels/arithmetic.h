// What the kernels share: bfloat16, RMSNorm and SiLU of rows, and matrix products with packed
// kernels. All arithmetic is in float.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "vectors.h"

namespace {

constexpr float EPS = 1e-4f;  // of RMSNorm

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

// -- RMSNorm and SiLU of rows of C numbers -------------------------------------------------------

inline float inverse_rms(int C, const float *x) {
  vec even{}, odd{};
  int c = 0;
  for (; c + 2 * LANES <= C; c += 2 * LANES) {
    const vec a = load_vec(x + c), b = load_vec(x + c + LANES);
    even += a * a;
    odd += b * b;
  }
  float squares = sum_of(even + odd);
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
  float dot = sum_of(dots);
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

// -- matrix products -----------------------------------------------------------------------------
//
// A packed kernel [in, out] lies as panels [out / PANEL, in, PANEL], the last one filled up with
// zeros, so that the innermost loop reads it from front to back.

constexpr int MOST_ROWS = LANES == 16 ? 12 : 6;  // 24 of 32 registers hold sums, or 12 of 16
constexpr int FEWER_ROWS = LANES == 16 ? 8 : 4;
constexpr int PANEL = 2 * LANES;

// A width filled up to whole panels.
inline int padded(int width) { return (width + PANEL - 1) / PANEL * PANEL; }

// Rows of this many numbers begin in all sets of the first cache in turn: an odd number of lines.
inline long spread(long width) { return ((width + 15) / 16 | 1) * 16; }

// c[R, PANEL] = start + a b, start being c itself or one row for all; a[r * row + k * column].
template <int R>
inline void block(int K, const float *a, long row, long column, const float *b, long step,
                  const float *start, long start_row, float *c, long ldc) {
  vec low[R], high[R];
  for (int r = 0; r < R; r++) {
    low[r] = load_vec(start + r * start_row);
    high[r] = load_vec(start + r * start_row + LANES);
  }
  for (int k = 0; k < K; k++) {
    const vec b0 = load_vec(b + k * step), b1 = load_vec(b + k * step + LANES);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const float x = a[r * row + k * column];
      low[r] += x * b0;
      high[r] += x * b1;
    }
  }
  for (int r = 0; r < R; r++) {
    store_vec(c + r * ldc, low[r]);
    store_vec(c + r * ldc + LANES, high[r]);
  }
}

template <int R>
using Rows = std::integral_constant<int, R>;

// All rows of one panel.
inline void rows_of_panel(int M, int K, const float *a, long row, long column, const float *b,
                          long step, const float *start, long start_row, float *c, long ldc) {
  int i = 0;
  const auto run = [&](auto rows) {
    constexpr int R = decltype(rows)::value;
    block<R>(K, a + i * row, row, column, b, step, start + i * start_row, start_row, c + i * ldc,
             ldc);
    i += R;
  };
  // Two blocks of four keep the multipliers busier than one of six and one of two.
  while (M - i >= MOST_ROWS && M - i != 8) run(Rows<MOST_ROWS>{});
  while (M - i >= FEWER_ROWS) run(Rows<FEWER_ROWS>{});
  while (M - i >= 4) run(Rows<4>{});
  while (M - i >= 2) run(Rows<2>{});
  while (M - i >= 1) run(Rows<1>{});
}

// c[M, N] = bias + a[M, K] kernel, or c += a kernel without a bias; the kernel is packed.
inline void product(int M, int N, int K, const float *a, long lda, const float *packed,
                    const float *bias, float *c, long ldc) {
  int j = 0;
  for (; j + PANEL <= N; j += PANEL)
    rows_of_panel(M, K, a, lda, 1, packed + static_cast<long>(j) * K, PANEL, bias ? bias + j : c + j,
                  bias ? 0 : ldc, c + j, ldc);
  if (j == N) return;
  const int left = N - j;
  float edge[MOST_ROWS * PANEL] = {};  // the last panel is wider than c
  for (int i = 0; i < M; i += MOST_ROWS) {
    const int rows = M - i < MOST_ROWS ? M - i : MOST_ROWS;
    for (int r = 0; r < rows; r++)
      std::memcpy(edge + r * PANEL, bias ? bias + j : c + (i + r) * ldc + j, left * 4);
    rows_of_panel(rows, K, a + i * lda, lda, 1, packed + static_cast<long>(j) * K, PANEL, edge,
                  PANEL, edge, PANEL);
    for (int r = 0; r < rows; r++) std::memcpy(c + (i + r) * ldc + j, edge + r * PANEL, left * 4);
  }
}

// c[M, N] += a[K, M]^T b[K, N]: what K rows add to the gradient of a kernel; c is dense. N must be
// a multiple of PANEL.
inline void outer_product(int M, int N, int K, const float *a, long lda, const float *b, long ldb,
                          float *c) {
  for (int j = 0; j < N; j += PANEL)
    rows_of_panel(M, K, a, 1, lda, b + j, ldb, c + j, N, c + j, N);
}

}  // namespace
