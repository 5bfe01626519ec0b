// Products in tiles of AMX, which are emulated here, beside products of pairs, for any processor
// that has the pairs: prints how far both are apart and from exact products, as a share of the
// largest number.

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

namespace tile {

uint8_t registers[8][16][64];

void load(int tile, const void *from, long stride) {
  for (int r = 0; r < 16; r++)
    std::memcpy(registers[tile][r], static_cast<const char *>(from) + r * stride, 64);
}

void store(int tile, void *to, long stride) {
  for (int r = 0; r < 16; r++)
    std::memcpy(static_cast<char *>(to) + r * stride, registers[tile][r], 64);
}

float number(const uint8_t *row, int at) {
  uint32_t bits = 0;
  std::memcpy(reinterpret_cast<char *>(&bits) + 2, row + 2 * at, 2);
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

void multiply(int sums, int a, int b) {
  for (int r = 0; r < 16; r++)
    for (int pair = 0; pair < 16; pair++)
      for (int column = 0; column < 16; column++) {
        float *sum = reinterpret_cast<float *>(registers[sums][r]) + column;
        for (int i = 0; i < 2; i++)
          *sum += number(registers[a][r], 2 * pair + i) *
                  number(registers[b][pair], 2 * column + i);
      }
}

}  // namespace tile

#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#undef _tile_loadconfig
#undef _tile_release
#define _tile_loadd tile::load
#define _tile_stored tile::store
#define _tile_dpbf16ps tile::multiply
#define _tile_loadconfig(configuration) static_cast<void>(configuration)
#define _tile_release() static_cast<void>(0)
#include "gemm.h"

bool in_tiles;

using Numbers = std::vector<float>;

namespace {

std::minstd_rand generator(1);

Numbers numbers(long count) {
  Numbers made(count);
  for (float &x : made) x = std::normal_distribution<float>()(generator);
  return made;
}

double apart(const Numbers &x, const Numbers &y) {
  double largest = 0, difference = 0;
  for (size_t i = 0; i < x.size(); i++) {
    largest = std::max<double>(largest, std::fabs(x[i]));
    difference = std::max<double>(difference, std::fabs(x[i] - y[i]));
  }
  return difference / largest;
}

// Run a product that adds to c in tiles and in pairs, and print how far they are apart.
template <typename Product>
void compare(const Numbers &c, const Numbers &exact, const Product &product) {
  Numbers made[2] = {c, c};
  for (bool tiles : {false, true}) {
    in_tiles = tiles;
    product(made[tiles].data());
  }
  std::printf("%g %g\n", apart(made[0], made[1]), apart(exact, made[1]));
}

void compare_all(int M, int N, int K) {
  const Numbers a = numbers(M * K), b = numbers(K * N), bias = numbers(N), c = numbers(M * N);
  Numbers packed(packed_size(true, K, N)), with_bias(M * N), added = c, transposed(K * M);
  auto *kernel = reinterpret_cast<low::bf16 *>(packed.data());
  for (int j = 0; j < N; j += low::COLUMNS)
    low::to_panel(K, b.data() + j, N, low::some(N, j), kernel + j * low::whole(K, low::LINE));
  for (int i = 0; i < M; i++)
    for (int j = 0; j < N; j++) {
      double sum = 0;
      for (int k = 0; k < K; k++) sum += double(a[i * K + k]) * b[k * N + j];
      with_bias[i * N + j] = bias[j] + sum;
      added[i * N + j] += sum;
    }
  for (int i = 0; i < M; i++)
    for (int k = 0; k < K; k++) transposed[k * M + i] = a[i * K + k];
  compare(c, with_bias, [&](float *to) { low::gemm(M, N, K, a.data(), K, kernel, bias.data(), to, N); });
  compare(c, added, [&](float *to) { low::gemm(M, N, K, a.data(), K, kernel, nullptr, to, N); });
  compare(c, added, [&](float *to) {
    low::gemm_transposed(M, N, K, transposed.data(), M, b.data(), N, to);
  });
}

}  // namespace

int main() {
  const int shapes[][3] = {{1, 1, 1},     {1, 5, 33},    {5, 70, 7},    {16, 32, 32}, {17, 33, 31},
                           {46, 64, 640}, {48, 255, 512}, {33, 64, 48}, {100, 96, 300}};
  for (const auto &shape : shapes) compare_all(shape[0], shape[1], shape[2]);
}
