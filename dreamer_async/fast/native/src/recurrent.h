// The recurrent state-space model: one step of some rows.
//
//   x0 = SiLU(norm(W0 h + b0)), x1 = SiLU(norm(W1 z + b1))
//   q  = SiLU(norm(action + own_g h_g + common [x0, x1]))        own_g: block-diagonal
//   reset, cand, update = gru_g q_g + b                          block by block
//   h' = u tanh(sigmoid(reset) cand) + (1 - u) h,  u = sigmoid(update - 1)
//   o  = SiLU(norm(token + Wo h')),  logits = Wl o + bl,  z' ~ (1 - unimix) softmax + unimix / K
//
// `action` and `token` are the parts that depend on no state, made by the caller, biases included.
// Names with "d" are gradients.

#pragma once

#include "categorical.h"
#include "dense.h"

namespace {

template <typename T>
inline T *offset(T *p, long by) {
  return p ? p + by : p;
}

struct Shape {
  int D, H, SK, G, block;
};

inline Shape shape(const Core &c) {
  return {c.deter, c.hidden, c.variables * c.classes, c.blocks, c.deter / c.blocks};
}

inline Activations step_of(const Activations &k, const Shape &s, long at) {
  return {offset(k.u0, at * s.H), offset(k.u1, at * s.H), offset(k.x, at * 2 * s.H),
          offset(k.v, at * s.D),  offset(k.q, at * s.D),  offset(k.gru, at * 3 * s.D),
          offset(k.o, at * s.H),  offset(k.p, at * s.H),  k.saved};
}

// h' of one block.
inline void gate(int block, const float *gates, const float *h, float *fresh) {
  const float *cands = gates + block, *updates = gates + 2 * block;
  int j = 0;
  for (; j + LANES <= block; j += LANES) {
    // With a = exp(1 - update) and b = exp(2 sigmoid(reset) cand), h' is
    // ((b - 1) / (b + 1) + a h) / (1 + a), of which one division is left.
    const vec a = power(load_vec(updates + j) - 1.0f, -LOG2E, 40.0f);
    const vec b = power(sigmoid(load_vec(gates + j)) * load_vec(cands + j), 2.0f * LOG2E, 20.0f);
    const vec whole = 1.0f + b;
    store_vec(fresh + j, (b - 1.0f + a * load_vec(h + j) * whole) / ((1.0f + a) * whole));
  }
  for (; j < block; j++) {
    const float cand = tanh_of(sigmoid(gates[j]) * cands[j]), update = sigmoid(updates[j] - 1.0f);
    fresh[j] = update * cand + (1.0f - update) * h[j];
  }
}

// u += what W1 reads of z: one class of each variable is 1, or none at a reset.
inline void add_classes(const Core &c, const float *z, float *u) {
  const Shape s = shape(c);
  thread_local std::vector<int> classes;
  classes.resize(s.SK);
  int count = 0;
  for (int j = 0; j < s.SK; j++) {
    classes[count] = j;
    count += z[j] != 0.0f;
  }
  const float *w = c.w1;
  int m = 0;
  for (; m + 4 * LANES <= s.H; m += 4 * LANES) {
    vec sums[4];
    for (int l = 0; l < 4; l++) sums[l] = load_vec(u + m + l * LANES);
    for (int i = 0; i < count; i++) {
      const float weight = z[classes[i]];
      const float *row = w + static_cast<long>(classes[i]) * s.H + m;
      for (int l = 0; l < 4; l++) sums[l] += weight * load_vec(row + l * LANES);
    }
    for (int l = 0; l < 4; l++) store_vec(u + m + l * LANES, sums[l]);
  }
  for (int i = 0; i < count; i++) {
    const float *row = w + static_cast<long>(classes[i]) * s.H;
    for (int l = m; l < s.H; l++) u[l] += z[classes[i]] * row[l];
  }
}

// h' of n rows; those of activations are `apart` rows apart; h and z have row strides of their own,
// and action(i) points to what q reads of row i's.
template <typename Action>
void sequence(const Core &c, int n, const float *h, long ldh, const float *z, long ldz,
              const Action &action, const Activations &k, long apart, float *out, long ldo) {
  const Shape s = shape(c);
  const long H = s.H * apart, D = s.D * apart;
  gemm(c.bfloat16, n, s.H, s.D, h, ldh, c.w0, c.b0, k.u0, H);
  for (int i = 0; i < n; i++) {
    float *u1 = k.u1 + i * H, *x = k.x + i * 2 * H;
    std::memcpy(u1, c.b1, s.H * 4);
    add_classes(c, z + i * ldz, u1);
    norm_silu(s.H, k.u0 + i * H, c.g0, x);
    norm_silu(s.H, u1, c.g1, x + s.H);
    std::memcpy(k.v + i * D, action(i), s.D * 4);
  }
  gemm(c.bfloat16, n, s.D, 2 * s.H, k.x, 2 * H, c.common, nullptr, k.v, D);
  const long packed_own = packed_size(c.bfloat16, s.block, s.block);
  const long packed_gru = packed_size(c.bfloat16, s.block, 3 * s.block);
  for (int g = 0; g < s.G; g++)
    gemm(c.bfloat16, n, s.block, s.block, h + g * s.block, ldh, c.own + g * packed_own, nullptr,
         k.v + g * s.block, D);
  for (int i = 0; i < n; i++) norm_silu(s.D, k.v + i * D, c.gain, k.q + i * D);
  // The gates of one block after the other, in the same memory where they are not saved.
  const long ldg = k.saved ? 3 * D : 3 * s.block;
  for (int g = 0; g < s.G; g++) {
    float *gates = k.gru + (k.saved ? g * 3 * s.block : 0);
    gemm(c.bfloat16, n, 3 * s.block, s.block, k.q + g * s.block, D, c.gru + g * packed_gru,
         c.gru_bias + g * 3 * s.block, gates, ldg);
    for (int i = 0; i < n; i++)
      gate(s.block, gates + i * ldg, h + i * ldh + g * s.block, out + i * ldo + g * s.block);
  }
}

// One-hot samples of one row by the inverse CDF of uniform noise, or of given classes.
inline void sample(const Core &c, const float *logits, const float *noise, const int64_t *chosen,
                   float *probs, float *z) {
  const int K = c.classes, SK = c.variables * K;
  if (chosen) {
    for (int j = 0; j < SK; j++) z[j] = j % K == chosen[j / K] ? 1.0f : 0.0f;
    return;
  }
  softmax(c.variables, K, logits, probs);
  mix_uniform(c.variables, K, c.unimix, probs, probs);
  if (K == 4) {
    return each_vector(SK, probs, z, [&](int at, vec p) {
      vec threshold{};
      for (int l = 0; l < LANES && at + l < SK; l++) threshold[l] = noise[(at + l) / 4];
      return sample_of_fours(p, threshold);
    });
  }
  for (int s = 0; s < c.variables; s++) {
    float *p = probs + s * K, sum = 0.0f;
    for (int k = 0; k < K; k++) p[k] = sum += p[k];
    const float threshold = noise[s] * sum;
    int index = 0;
    for (int k = 0; k < K; k++) index += p[k] <= threshold;
    index = index < K ? index : K - 1;
    for (int k = 0; k < K; k++) z[s * K + k] = k == index ? 1.0f : 0.0f;
  }
}

// Memory for activations that are not saved of `rows` rows.
inline Activations scratch(const Shape &s, long rows, std::vector<float> &memory) {
  memory.resize(rows * (6 * s.H + s.D + 3 * s.block));
  float *at = memory.data();
  const auto take = [&](long width) {
    float *taken = at;
    at += rows * width;
    return taken;
  };
  float *u0 = take(s.H), *u1 = take(s.H), *x = take(2 * s.H), *v = take(s.D);
  float *gru = take(3 * s.block), *o = take(s.H), *p = take(s.H);
  return {u0, u1, x, v, v, gru, o, p, 0};
}

// Logits of z after h', and the activations on the way; token(i) points to what o reads of row i's.
template <typename Token>
void posterior(const Core &c, int n, const float *h, long ldh, const Token &token,
               const Activations &k, long apart, float *logits, long ldl) {
  const Shape s = shape(c);
  const long H = apart * s.H;
  for (int i = 0; i < n; i++) std::memcpy(k.o + i * H, token(i), s.H * 4);
  gemm(c.bfloat16, n, s.H, s.D, h, ldh, c.wo, nullptr, k.o, H);
  for (int i = 0; i < n; i++) norm_silu(s.H, k.o + i * H, c.go, k.p + i * H);
  gemm(c.bfloat16, n, s.SK, s.H, k.p, H, c.wl, c.bl, logits, ldl);
}

}  // namespace
