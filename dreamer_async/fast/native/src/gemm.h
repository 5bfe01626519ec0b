// Matrix products with packed kernels (gemm), in the words of BLIS: a micro-kernel holds MR rows of
// one panel of NR columns of the result in registers.
//
// A packed kernel [in, out] lies as panels [out / NR, in, NR], the last one filled up with zeros,
// so that the innermost loop reads it from front to back. Kernels of bfloat16: see bfloat16.h.

#pragma once

#include <cstring>

#include "bfloat16.h"
#include "vectors.h"

namespace {

constexpr int MR = LANES == 16 ? 12 : 6;  // 24 of 32 registers hold sums, or 12 of 16
constexpr int MR_SMALL = LANES == 16 ? 8 : 4;
constexpr int NR = 2 * LANES;

// A width filled up to whole panels.
inline int padded(int width) { return (width + NR - 1) / NR * NR; }

// Floats that a packed kernel [in, out] takes.
inline long packed_size(bool bfloat16, int in, int out) {
  return static_cast<long>(bfloat16 ? (in + 31) / 32 * 16 : in) * padded(out);
}

// c[R, NR] = start + a b, start being c itself or one row for all; a[r * row + k * column].
template <int R>
inline void micro_kernel(int K, const float *a, long row, long column, const float *b, long step,
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

// All rows of one panel.
inline void gemm_panel(int M, int K, const float *a, long row, long column, const float *b,
                       long step, const float *start, long start_row, float *c, long ldc) {
  int i = 0;
  const auto run = [&](auto rows) {
    constexpr int R = decltype(rows)::value;
    micro_kernel<R>(K, a + i * row, row, column, b, step, start + i * start_row, start_row,
                    c + i * ldc, ldc);
    i += R;
  };
  // Two blocks of four keep the multipliers busier than one of six and one of two.
  while (M - i >= MR && M - i != 8) run(Constant<MR>{});
  while (M - i >= MR_SMALL) run(Constant<MR_SMALL>{});
  while (M - i >= 4) run(Constant<4>{});
  while (M - i >= 2) run(Constant<2>{});
  while (M - i >= 1) run(Constant<1>{});
}

// c[M, N] = bias + a[M, K] kernel, or c += a kernel without a bias; the kernel is packed.
inline void gemm([[maybe_unused]] bool bfloat16, int M, int N, int K, const float *a, long lda,
                 const float *packed, const float *bias, float *c, long ldc) {
#if defined(HAS_BFLOAT16)
  if (bfloat16)
    return low::gemm(M, N, K, a, lda, reinterpret_cast<const low::bf16 *>(packed), bias, c, ldc);
#endif
  int j = 0;
  for (; j + NR <= N; j += NR)
    gemm_panel(M, K, a, lda, 1, packed + static_cast<long>(j) * K, NR, bias ? bias + j : c + j,
               bias ? 0 : ldc, c + j, ldc);
  if (j == N) return;
  const int left = N - j;
  float edge[MR * NR] = {};  // the last panel is wider than c
  for (int i = 0; i < M; i += MR) {
    const int rows = M - i < MR ? M - i : MR;
    for (int r = 0; r < rows; r++)
      std::memcpy(edge + r * NR, bias ? bias + j : c + (i + r) * ldc + j, left * 4);
    gemm_panel(rows, K, a + i * lda, lda, 1, packed + static_cast<long>(j) * K, NR, edge, NR, edge,
               NR);
    for (int r = 0; r < rows; r++) std::memcpy(c + (i + r) * ldc + j, edge + r * NR, left * 4);
  }
}

// c[M, N] += a[K, M]^T b[K, N]: what K rows add to the gradient of a kernel; c is dense. N must be
// a multiple of NR.
inline void gemm_transposed([[maybe_unused]] bool bfloat16, int M, int N, int K, const float *a,
                            long lda, const float *b, long ldb, float *c) {
#if defined(HAS_BFLOAT16)
  if (bfloat16) return low::gemm_transposed(M, N, K, a, lda, b, ldb, c);
#endif
  for (int j = 0; j < N; j += NR) gemm_panel(M, K, a, 1, lda, b + j, ldb, c + j, N, c + j, N);
}

}  // namespace
