// Vectors of floats, and exp, sigmoid and tanh of one number or of a vector of them.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__AVX__)
#include <immintrin.h>
#endif

// SIXTEEN_LANES computes as on a processor with AVX-512, slower, on any: for tests.
#if defined(__AVX512F__) || defined(SIXTEEN_LANES)
#define LANE_COUNT 16
#else
#define LANE_COUNT 8
#endif

namespace {

// A number that a generic lambda can use as a template's argument.
template <int R>
using Constant = std::integral_constant<int, R>;

constexpr int LANES = LANE_COUNT;

// Rows of this many numbers begin in all sets of the first cache in turn: an odd number of lines.
inline long padded_stride(long width) { return ((width + 15) / 16 | 1) * 16; }

typedef float vec __attribute__((vector_size(LANES * 4), aligned(4)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4), aligned(4)));

inline vec load_vec(const float *x) { return *reinterpret_cast<const vec *>(x); }
inline void store_vec(float *x, vec y) { *reinterpret_cast<vec *>(x) = y; }
inline vec broadcast(float x) { return x - vec{}; }

// y = f(index, x) of n numbers, a vector at a time; f must bear zeros behind the last one.
template <typename F>
inline void each_vector(int n, const float *x, float *y, const F &f) {
  int i = 0;
  for (; i + LANES <= n; i += LANES) store_vec(y + i, f(i, load_vec(x + i)));
  if (i >= n) return;
  float edge[LANES] = {};
  std::memcpy(edge, x + i, (n - i) * 4);
  store_vec(edge, f(i, load_vec(edge)));
  std::memcpy(y + i, edge, (n - i) * 4);
}

// Of two numbers the larger or smaller one; of NaN in x, NaN.
inline vec maximum(vec limit, vec x) {
#if defined(__AVX512F__)
  return _mm512_max_ps(limit, x);
#elif defined(__AVX__) && LANE_COUNT == 8
  return _mm256_max_ps(limit, x);
#else
  return limit > x ? limit : x;
#endif
}

inline vec minimum(vec limit, vec x) {
#if defined(__AVX512F__)
  return _mm512_min_ps(limit, x);
#elif defined(__AVX__) && LANE_COUNT == 8
  return _mm256_min_ps(limit, x);
#else
  return limit < x ? limit : x;
#endif
}

inline vec square_root(vec x) {
#if defined(__AVX512F__)
  return _mm512_sqrt_ps(x);
#elif defined(__AVX__) && LANE_COUNT == 8
  return _mm256_sqrt_ps(x);
#else
  for (int i = 0; i < LANES; i++) x[i] = std::sqrt(x[i]);
  return x;
#endif
}

inline float horizontal_sum(vec x) {
  for (int half = LANES / 2; half; half /= 2)
    for (int i = 0; i < half; i++) x[i] += x[i + half];
  return x[0];
}

// exp to about 2 units in the last place, without a call, so that loops over it become vectors.
// NaN stays NaN; outside [-87, 88] it is that of the nearer end.
inline float exponential(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const float n = std::nearbyint(x * 1.44269504f);
  const float r = x - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const uint32_t bits = static_cast<uint32_t>(static_cast<int32_t>(n) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, 4);
  return p * power;
}

// 2^(x scale) of a vector, to about 3 units in the last place, for x within [-most, most].
inline vec power(vec x, float scale, float most) {
  constexpr float WHOLE = 12582912.0f;  // 1.5 * 2^23: a sum with it has no fraction
  x = minimum(broadcast(most), maximum(broadcast(-most), x));
  const vec sum = x * scale + WHOLE;
  const vec f = x * scale - (sum - WHOLE);  // in [-1/2, 1/2]; the product is not rounded
  vec p = f * 1.3264727e-3f + 9.671513e-3f;
  p = p * f + 5.5507336e-2f;
  p = p * f + 2.4022242e-1f;
  p = p * f + 6.93147e-1f;
  p = p * f + 1.0f;
  return reinterpret_cast<vec>(reinterpret_cast<ivec>(p) + (reinterpret_cast<ivec>(sum) << 23));
}

constexpr float LOG2E = 1.44269504f;

inline vec exponential(vec x) { return power(x, LOG2E, 86.0f); }

inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

inline float tanh_of(float x) { return 1.0f - 2.0f / (1.0f + exponential(2.0f * x)); }

inline vec sigmoid(vec x) { return 1.0f / (1.0f + power(x, -LOG2E, 86.0f)); }

inline vec tanh_of(vec x) { return 1.0f - 2.0f / (1.0f + power(x, 2.0f * LOG2E, 43.0f)); }

// ln x for normal x > 0, to about 2 units in the last place or 1e-7.
inline vec logarithm(vec x) {
  const ivec bits = reinterpret_cast<ivec>(x) - 0x3f3504f3;  // from the root of 1/2 on
  const vec exponent = __builtin_convertvector(bits >> 23, vec);
  const vec f = reinterpret_cast<vec>((bits & 0x007fffff) + 0x3f3504f3) - 1.0f;
  vec p = f * 7.0376836292e-2f - 1.1514610310e-1f;  // Cephes, logf
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  const vec square = f * f;
  return exponent * 0.693147181f + (f - 0.5f * square + square * f * p);
}

// -- categoricals of four classes, each beside the other -----------------------------------------

#if LANE_COUNT == 16
#define IN_FOURS(a, b, c, d) \
  a, b, c, d, a + 4, b + 4, c + 4, d + 4, a + 8, b + 8, c + 8, d + 8, a + 12, b + 12, c + 12, d + 12
#else
#define IN_FOURS(a, b, c, d) a, b, c, d, a + 4, b + 4, c + 4, d + 4
#endif

// Numbers A, B, C, D of each four; from LANES on, those of a second vector.
template <int A, int B, int C, int D, typename V>
inline V fours(V x, V other = V{}) {
#if defined(__clang__)
  return __builtin_shufflevector(x, other, IN_FOURS(A, B, C, D));
#else
  return __builtin_shuffle(x, other, ivec{IN_FOURS(A, B, C, D)});
#endif
}

inline vec softmax_of_fours(vec x) {
  const vec pair = maximum(x, fours<1, 0, 3, 2>(x));
  const vec e = exponential(x - maximum(pair, fours<2, 3, 0, 1>(pair)));
  const vec sum = e + fours<1, 0, 3, 2>(e);
  return e / (sum + fours<2, 3, 0, 1>(sum));
}

// One-hot classes where the cumulated probabilities exceed a share of all of them.
inline vec sample_of_fours(vec p, vec level) {
  vec cdf = p + fours<LANES, 0, 1, 2>(p);
  cdf += fours<LANES, LANES + 1, 0, 1>(cdf);
  const vec total = fours<3, 3, 3, 3>(cdf);
  const ivec early = (ivec{IN_FOURS(0, 1, 2, 3)} & 3) < 3;  // the last class takes what is left
  const ivec below = (cdf <= level * total) & early;
  const ivec before = fours<LANES, 0, 1, 2>(below, ~ivec{});
  return reinterpret_cast<vec>(before & ~below & reinterpret_cast<ivec>(broadcast(1.0f)));
}

#undef IN_FOURS

// Keeps a vector in its register, where GCC would read it again for every product.
inline void keep_in_register(vec &x) {
#if defined(__AVX512F__)
  asm("" : "+v"(x));
#elif defined(__AVX__) && LANE_COUNT == 8
  asm("" : "+x"(x));
#endif
  (void)x;
}

}  // namespace
