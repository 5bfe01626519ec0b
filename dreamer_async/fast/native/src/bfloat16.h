// Matrix products (gemm) of numbers rounded to bfloat16, with sums in float32: in tiles on Intel's
// processors with AMX, elsewhere with AVX-512's products of pairs (AMD's since Zen 4).
//
// A packed kernel [in, out] lies as panels [out / 32, 2, in / 2, 16, 2]: the halves of a panel, its
// pairs of rows, columns, and the rows of a pair; filled up with zeros to whole tiles.

#pragma once

#include "vectors.h"

#if defined(__clang__)
#define COMPILER_KNOWS_AMX (__clang_major__ >= 12)
#else
#define COMPILER_KNOWS_AMX (__GNUC__ >= 11)
#endif

#if defined(__x86_64__) && defined(__AVX512F__) && COMPILER_KNOWS_AMX
#define HAS_BFLOAT16 1

#include <vector>

#include "amx.h"

// The library is built for processors without bfloat16, too.
#define WITH_BFLOAT16 __attribute__((target("avx512bf16,avx512bw,avx512dq,avx512vl")))

// Whether products are made in tiles, which `permit_bfloat16` in dense.cpp decides.
extern bool in_tiles __attribute__((visibility("hidden")));

namespace {
namespace low {

using amx::bf16;

constexpr int LINE = 32;  // numbers of a line of the cache
constexpr int COLUMNS = amx::COLUMNS;
static_assert(LINE == amx::DEPTH, "what fills up tiles fills up lines");

inline int whole(int n, int part) { return (n + part - 1) / part * part; }

// How far rows of K numbers, two in the room of a float, are apart.
inline long apart(int K) { return 2 * padded_stride(whole(K, LINE) / 2); }

// -- layouts --------------------------------------------------------------------------------------

inline __mmask16 first(int count) {
  return count >= 16 ? 0xffff : count <= 0 ? 0 : (1u << count) - 1;
}

struct alignas(64) Line {
  bf16 numbers[LINE];
};

// Room for so many numbers, one of two that each thread has.
template <int WHICH>
bf16 *room(long numbers) {
  thread_local std::vector<Line> memory;
  const size_t lines = (numbers + LINE - 1) / LINE;
  if (memory.size() < lines) memory.resize(lines);
  return memory.data()->numbers;
}

// Two rows of 16 numbers, of which there are `columns`, as pairs; null stands for zeros.
WITH_BFLOAT16 inline __m512i paired(const float *even, const float *odd, __mmask16 columns) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const __m512 low = even ? _mm512_maskz_loadu_ps(columns, even) : _mm512_setzero_ps();
  const __m512 high = odd ? _mm512_maskz_loadu_ps(columns, odd) : _mm512_setzero_ps();
  return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

// One panel of a kernel, b[K, columns].
WITH_BFLOAT16 inline void to_panel(int K, const float *b, long step, int columns, bf16 *out) {
  const int depth = whole(K, LINE);
  for (int half = 0; half < COLUMNS; half += 16) {
    const __mmask16 some = first(columns - half);
    for (int k = 0; k < depth; k += 2, out += 32) {
      const float *row = b + k * step + half;
      _mm512_storeu_si512(out,
                          paired(k < K ? row : nullptr, k + 1 < K ? row + step : nullptr, some));
    }
  }
}

// The rows of a[M, K].
WITH_BFLOAT16 inline void to_rows(int M, int K, const float *a, long lda, bf16 *out, long stride) {
  for (int i = 0; i < M; i++, a += lda, out += stride) {
    for (int k = 0; k < whole(K, LINE); k += LINE) {
      const __m512 low = _mm512_maskz_loadu_ps(first(K - k), a + k);
      const __m512 high = _mm512_maskz_loadu_ps(first(K - k - 16), a + k + 16);
      _mm512_storeu_si512(out + k, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
  }
  std::memset(out, 0, (whole(M, amx::ROWS) - M) * stride * sizeof(bf16));
}

// 16x16 pairs, transposed.
WITH_BFLOAT16 inline void transpose(const __m512i *x, bf16 *out, long stride) {
  __m512i twos[16], fours[16];  // as many rows lie beside each other in 128 bits
  for (int i = 0; i < 16; i += 2) {
    twos[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
    twos[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    fours[i] = _mm512_unpacklo_epi64(twos[i], twos[i + 2]);
    fours[i + 1] = _mm512_unpackhi_epi64(twos[i], twos[i + 2]);
    fours[i + 2] = _mm512_unpacklo_epi64(twos[i + 1], twos[i + 3]);
    fours[i + 3] = _mm512_unpackhi_epi64(twos[i + 1], twos[i + 3]);
  }
  for (int i = 0; i < 4; i++, out += stride) {
    const __m512i even = _mm512_shuffle_i32x4(fours[i], fours[4 + i], 0x88);
    const __m512i odd = _mm512_shuffle_i32x4(fours[i], fours[4 + i], 0xdd);
    const __m512i even_below = _mm512_shuffle_i32x4(fours[8 + i], fours[12 + i], 0x88);
    const __m512i odd_below = _mm512_shuffle_i32x4(fours[8 + i], fours[12 + i], 0xdd);
    _mm512_storeu_si512(out, _mm512_shuffle_i32x4(even, even_below, 0x88));
    _mm512_storeu_si512(out + 4 * stride, _mm512_shuffle_i32x4(odd, odd_below, 0x88));
    _mm512_storeu_si512(out + 8 * stride, _mm512_shuffle_i32x4(even, even_below, 0xdd));
    _mm512_storeu_si512(out + 12 * stride, _mm512_shuffle_i32x4(odd, odd_below, 0xdd));
  }
}

// The columns of a[K, M].
WITH_BFLOAT16 inline void to_columns(int M, int K, const float *a, long lda, bf16 *out,
                                     long stride) {
  for (int m = 0; m < M; m += amx::ROWS) {
    for (int k = 0; k < whole(K, LINE); k += LINE) {
      __m512i x[amx::ROWS];
      for (int p = 0; p < amx::ROWS; p++) {
        const int at = k + 2 * p;
        const float *row = a + at * lda + m;
        x[p] = paired(at < K ? row : nullptr, at + 1 < K ? row + lda : nullptr, first(M - m));
      }
      transpose(x, out + m * stride + k, stride);
    }
  }
}

// -- products of pairs ----------------------------------------------------------------------------

struct Columns {
  __mmask16 low, high;
};

// c[R, columns] = start + a b, where both have so many pairs in common.
template <int R>
WITH_BFLOAT16 inline void micro_kernel(int pairs, const bf16 *a, long lda, const bf16 *b,
                                       const bf16 *right, Columns columns, const float *start,
                                       long start_row, float *c, long ldc) {
  __m512 low[R], high[R];
  for (int r = 0; r < R; r++) {
    low[r] = _mm512_maskz_loadu_ps(columns.low, start + r * start_row);
    high[r] = _mm512_maskz_loadu_ps(columns.high, start + r * start_row + 16);
  }
  for (int p = 0; p < pairs; p++) {
    const auto b0 = (__m512bh)_mm512_loadu_si512(b + p * LINE);
    const auto b1 = (__m512bh)_mm512_loadu_si512(right + p * LINE);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      int pair;
      std::memcpy(&pair, a + r * lda + 2 * p, sizeof pair);
      const auto x = (__m512bh)_mm512_set1_epi32(pair);
      low[r] = _mm512_dpbf16_ps(low[r], x, b0);
      high[r] = _mm512_dpbf16_ps(high[r], x, b1);
    }
  }
  for (int r = 0; r < R; r++) {
    _mm512_mask_storeu_ps(c + r * ldc, columns.low, low[r]);
    _mm512_mask_storeu_ps(c + r * ldc + 16, columns.high, high[r]);
  }
}

// All rows of one panel: c[M, columns] = bias + a b, or c += a b without a bias.
inline void gemm_panel(int M, int columns, int K, const bf16 *a, long lda, const bf16 *b,
                       const float *bias, float *c, long ldc) {
  const Columns some = {first(columns), first(columns - 16)};
  const bf16 *right = b + 16L * whole(K, LINE);
  int i = 0;
  const auto run = [&](auto rows) {
    constexpr int R = decltype(rows)::value;
    float *to = c + i * ldc;
    micro_kernel<R>((K + 1) / 2, a + i * lda, lda, b, right, some, bias ? bias : to,
                    bias ? 0 : ldc, to, ldc);
    i += R;
  };
  while (M - i >= 12) run(Constant<12>{});
  while (M - i >= 4) run(Constant<4>{});
  while (M - i >= 1) run(Constant<1>{});
}

// -- products -------------------------------------------------------------------------------------

// Rows times one panel of a kernel, by whichever instructions there are.
inline void panel(int M, int columns, int K, const bf16 *a, long lda, const bf16 *b,
                  const float *bias, float *c, long ldc) {
  if (in_tiles)
    amx::gemm_panel(M, columns, whole(K, LINE), a, lda, b, bias, c, ldc);
  else
    gemm_panel(M, columns, K, a, lda, b, bias, c, ldc);
}

inline int some(int N, int j) { return N - j < COLUMNS ? N - j : COLUMNS; }

// See the one of float32.
inline void gemm(int M, int N, int K, const float *a, long lda, const bf16 *packed,
                 const float *bias, float *c, long ldc) {
  const long stride = apart(K);
  bf16 *rows = room<0>(whole(M, amx::ROWS) * stride);
  to_rows(M, K, a, lda, rows, stride);
  if (in_tiles) amx::begin();
  for (int j = 0; j < N; j += COLUMNS)
    panel(M, some(N, j), K, rows, stride, packed + static_cast<long>(j) * whole(K, LINE),
          bias ? bias + j : nullptr, c + j, ldc);
  if (in_tiles) amx::end();
}

// See the one of float32.
inline void gemm_transposed(int M, int N, int K, const float *a, long lda, const float *b,
                            long ldb, float *c) {
  const long stride = apart(K);
  bf16 *columns = room<0>(whole(M, amx::ROWS) * stride);
  bf16 *kernel = room<1>(static_cast<long>(COLUMNS) * whole(K, LINE));
  to_columns(M, K, a, lda, columns, stride);
  if (in_tiles) amx::begin();
  for (int j = 0; j < N; j += COLUMNS) {
    to_panel(K, b + j, ldb, some(N, j), kernel);
    panel(M, some(N, j), K, columns, stride, kernel, nullptr, c + j, N);
  }
  if (in_tiles) amx::end();
}

}  // namespace low
}  // namespace

#endif
