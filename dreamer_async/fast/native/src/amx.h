// Products of 16 or 32 rows of bfloat16 with a panel of a kernel, by Intel's AMX.
//
// A tile register holds 16 rows of 64 bytes: 16x32 numbers of `a`, 32x16 of the kernel, whose rows
// lie in it as pairs, or 16x16 sums. Four tiles of sums are added to at a time, from two tiles of
// `a` and two of the kernel.

#pragma once

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

#define WITH_AMX __attribute__((target("amx-tile,amx-bf16")))

namespace {
namespace amx {

typedef uint16_t bf16;

constexpr int ROWS = 16;     // of a tile
constexpr int DEPTH = 32;    // numbers of a row of `a` in a tile
constexpr int COLUMNS = 32;  // of a panel

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

WITH_AMX inline void begin() {
  static const Configuration configuration;
  _tile_loadconfig(&configuration);
}

// A thread with nothing in its tiles has nothing of them saved.
WITH_AMX inline void end() { _tile_release(); }

// c = start + a b for 16 rows, or 32 of them, and 32 columns.
template <bool TWICE>
WITH_AMX inline void micro_kernel(int depth, const bf16 *a, long lda, const bf16 *b,
                                  const float *start, long start_row, float *c, long ldc) {
  const long line = lda * sizeof(bf16), starts = start_row * 4, ends = ldc * 4;
  const bf16 *below = a + ROWS * lda, *right = b + 16L * depth;
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
WITH_AMX inline void gemm_panel(int M, int columns, int depth, const bf16 *a, long lda,
                                const bf16 *b, const float *bias, float *c, long ldc) {
  alignas(64) float edge[2 * ROWS * COLUMNS];
  for (int i = 0; i < M; i += 2 * ROWS) {
    const int rows = M - i < 2 * ROWS ? M - i : 2 * ROWS;
    const auto run = rows > ROWS ? micro_kernel<true> : micro_kernel<false>;
    const bf16 *from = a + i * lda;
    float *to = c + i * ldc;
    if (columns == COLUMNS && rows % ROWS == 0) {
      run(depth, from, lda, b, bias ? bias : to, bias ? 0 : ldc, to, ldc);
      continue;
    }
    for (int r = 0; r < rows; r++)  // tiles are larger than what is left of c
      std::memcpy(edge + r * COLUMNS, bias ? bias : to + r * ldc, columns * 4);
    run(depth, from, lda, b, edge, COLUMNS, edge, COLUMNS);
    for (int r = 0; r < rows; r++) std::memcpy(to + r * ldc, edge + r * COLUMNS, columns * 4);
  }
}

}  // namespace amx
}  // namespace
