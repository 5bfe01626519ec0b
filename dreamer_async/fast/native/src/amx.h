// Matrix products (gemm) of numbers rounded to bfloat16, with sums in float32, by Intel's AMX.
//
// A tile register holds 16 rows of 64 bytes: 16x32 numbers of `a`, 32x16 of the kernel, whose rows
// lie in it as pairs, or 16x16 sums. Four tiles of sums are added to at a time, from two tiles of
// `a` and two of the kernel.
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
#define HAS_AMX 1

#include <sys/syscall.h>
#include <unistd.h>

#include <vector>

// The library is built for processors without AMX, too.
#define WITH_AMX \
  __attribute__((target("amx-tile,amx-bf16,avx512bf16,avx512bw,avx512dq,avx512vl")))

namespace {
namespace amx {

typedef uint16_t bf16;

constexpr int ROWS = 16;        // of a tile
constexpr int DEPTH = 32;       // numbers of a row of `a` in a tile
constexpr int COLUMNS = 2 * 16;  // of a panel

inline int whole(int n, int part) { return (n + part - 1) / part * part; }

// Linux saves tiles only of processes that have asked for it.
inline bool permitted() {
  constexpr int ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILE_DATA = 18;
  return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA) == 0;
}

struct alignas(64) Configuration {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};  // of a row of each register
  uint8_t rows[16] = {ROWS, ROWS, ROWS, ROWS, ROWS, ROWS, ROWS, ROWS};
};

// -- layouts --------------------------------------------------------------------------------------

inline __mmask16 first(int count) {
  return count >= 16 ? 0xffff : count <= 0 ? 0 : (1u << count) - 1;
}

struct alignas(64) Line {
  bf16 numbers[32];
};

// Room for so many numbers, one of two that each thread has.
template <int WHICH>
bf16 *room(long numbers) {
  thread_local std::vector<Line> memory;
  const size_t lines = (numbers + 31) / 32;
  if (memory.size() < lines) memory.resize(lines);
  return memory.data()->numbers;
}

// Two rows of 16 numbers, of which there are `columns`, as pairs; null stands for zeros.
WITH_AMX inline __m512i pairs(const float *even, const float *odd, __mmask16 columns) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const __m512 low = even ? _mm512_maskz_loadu_ps(columns, even) : _mm512_setzero_ps();
  const __m512 high = odd ? _mm512_maskz_loadu_ps(columns, odd) : _mm512_setzero_ps();
  return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

// One panel of a kernel, b[K, columns].
WITH_AMX inline void to_panel(int K, const float *b, long step, int columns, bf16 *out) {
  const int depth = whole(K, DEPTH);
  for (int half = 0; half < COLUMNS; half += 16) {
    const __mmask16 some = first(columns - half);
    for (int k = 0; k < depth; k += 2, out += 32) {
      const float *row = b + k * step + half;
      _mm512_storeu_si512(out,
                          pairs(k < K ? row : nullptr, k + 1 < K ? row + step : nullptr, some));
    }
  }
}

// The rows of a[M, K].
WITH_AMX inline void to_rows(int M, int K, const float *a, long lda, bf16 *out) {
  const int depth = whole(K, DEPTH);
  for (int i = 0; i < M; i++, a += lda) {
    for (int k = 0; k < depth; k += DEPTH, out += DEPTH) {
      const __m512 low = _mm512_maskz_loadu_ps(first(K - k), a + k);
      const __m512 high = _mm512_maskz_loadu_ps(first(K - k - 16), a + k + 16);
      _mm512_storeu_si512(out, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
  }
  std::memset(out, 0, static_cast<long>(whole(M, ROWS) - M) * depth * sizeof(bf16));
}

// 16x16 pairs, transposed.
WITH_AMX inline void transpose(const __m512i *x, bf16 *out, long stride) {
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
WITH_AMX inline void to_columns(int M, int K, const float *a, long lda, bf16 *out) {
  const int depth = whole(K, DEPTH);
  for (int m = 0; m < M; m += ROWS) {
    for (int k = 0; k < depth; k += DEPTH) {
      __m512i x[ROWS];
      for (int p = 0; p < ROWS; p++) {
        const int at = k + 2 * p;
        const float *row = a + at * lda + m;
        x[p] = pairs(at < K ? row : nullptr, at + 1 < K ? row + lda : nullptr, first(M - m));
      }
      transpose(x, out + static_cast<long>(m) * depth + k, depth);
    }
  }
}

// -- products -------------------------------------------------------------------------------------

// c = start + a b for 16 rows, or 32 of them, and 32 columns.
template <bool TWICE>
WITH_AMX inline void micro_kernel(int depth, const bf16 *a, const bf16 *b, const float *start,
                                  long start_row, float *c, long ldc) {
  const long line = depth * sizeof(bf16), starts = start_row * 4, ends = ldc * 4;
  const bf16 *below = a + static_cast<long>(ROWS) * depth, *right = b + 16L * depth;
  _tile_loadd(0, start, starts);
  _tile_loadd(1, start + 16, starts);
  if (TWICE) {
    _tile_loadd(2, start + ROWS * start_row, starts);
    _tile_loadd(3, start + ROWS * start_row + 16, starts);
  }
  for (int k = 0; k < depth; k += DEPTH) {
    _tile_loadd(4, a + k, line);
    _tile_loadd(6, b + 16L * k, 64);
    _tile_loadd(7, right + 16L * k, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if (TWICE) {
      _tile_loadd(5, below + k, line);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, c, ends);
  _tile_stored(1, c + 16, ends);
  if (TWICE) {
    _tile_stored(2, c + ROWS * ldc, ends);
    _tile_stored(3, c + ROWS * ldc + 16, ends);
  }
}

// All rows of one panel: c[M, columns] = bias + a b, or c += a b without a bias.
WITH_AMX inline void gemm_panel(int M, int columns, int depth, const bf16 *a, const bf16 *b,
                                const float *bias, float *c, long ldc) {
  alignas(64) float edge[2 * ROWS * COLUMNS];
  for (int i = 0; i < M; i += 2 * ROWS) {
    const int rows = M - i < 2 * ROWS ? M - i : 2 * ROWS;
    const auto run = rows > ROWS ? micro_kernel<true> : micro_kernel<false>;
    const bf16 *from = a + static_cast<long>(i) * depth;
    float *to = c + i * ldc;
    if (columns == COLUMNS && rows % ROWS == 0) {
      run(depth, from, b, bias ? bias : to, bias ? 0 : ldc, to, ldc);
      continue;
    }
    for (int r = 0; r < rows; r++)  // tiles are larger than what is left of c
      std::memcpy(edge + r * COLUMNS, bias ? bias : to + r * ldc, columns * 4);
    run(depth, from, b, edge, COLUMNS, edge, COLUMNS);
    for (int r = 0; r < rows; r++) std::memcpy(to + r * ldc, edge + r * COLUMNS, columns * 4);
  }
}

// See the one of float32.
WITH_AMX inline void gemm(int M, int N, int K, const float *a, long lda, const bf16 *packed,
                          const float *bias, float *c, long ldc) {
  static const Configuration configuration;
  const int depth = whole(K, DEPTH);
  bf16 *rows = room<0>(static_cast<long>(whole(M, ROWS)) * depth);
  to_rows(M, K, a, lda, rows);
  _tile_loadconfig(&configuration);
  for (int j = 0; j < N; j += COLUMNS)
    gemm_panel(M, N - j < COLUMNS ? N - j : COLUMNS, depth, rows,
               packed + static_cast<long>(j) * depth, bias ? bias + j : nullptr, c + j, ldc);
  _tile_release();  // a thread with nothing in its tiles has nothing of them saved
}

// See the one of float32.
WITH_AMX inline void gemm_transposed(int M, int N, int K, const float *a, long lda, const float *b,
                                     long ldb, float *c) {
  static const Configuration configuration;
  const int depth = whole(K, DEPTH);
  bf16 *columns = room<0>(static_cast<long>(whole(M, ROWS)) * depth);
  bf16 *panel = room<1>(static_cast<long>(COLUMNS) * depth);
  to_columns(M, K, a, lda, columns);
  _tile_loadconfig(&configuration);
  for (int j = 0; j < N; j += COLUMNS) {
    const int some = N - j < COLUMNS ? N - j : COLUMNS;
    to_panel(K, b + j, ldb, some, panel);
    gemm_panel(M, some, depth, columns, panel, nullptr, c + j, N);
  }
  _tile_release();
}

}  // namespace amx
}  // namespace

#endif
