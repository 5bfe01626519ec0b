// The recurrent state-space model: one step of some rows.
//
//   x0 = SiLU(norm(W0 h + b0)), x1 = SiLU(norm(W1 z + b1))
//   q  = SiLU(norm(action + own_g h_g + common [x0, x1]))        own_g: block-diagonal
//   reset, cand, update = gru_g q_g + b                          block by block
//   h' = u tanh(sigmoid(reset) cand) + (1 - u) h,  u = sigmoid(update - 1)
//   o  = SiLU(norm(token + Wo h')),  logits = Wl o + bl,  z' ~ (1 - share) softmax + share / K
//
// `action` and `token` are the parts that depend on no state, made by the caller, biases included.
// Names with "d" are gradients.

#pragma once

#include "dense.h"

namespace {

template <typename T>
inline T *move(T *p, long by) {
  return p ? p + by : p;
}

}  // namespace

struct Core {
  int deter, hidden, variables, classes, blocks;
  float share;                                   // of the uniform distribution in z's
  const float *w0, *b0, *g0;                     // packed [D, Hd]
  const float *w1, *b1, *g1;                     // not packed [S K, Hd]
  const float *own, *common, *gain;              // G packed [D/G, D/G]; packed [2 Hd, D]; [D]
  const float *gru, *gru_bias;                   // G packed [D/G, 3 D/G]; [3 D], blocks first
  const float *wo, *go, *wl, *bl;                // packed [D, Hd]; packed [Hd, S K]
  // Packed transposes, read by the backward pass alone.
  const float *w0_t, *w1_t, *own_t, *common_t, *gru_t, *wo_t, *wl_t;
};

// One row for each (row, step); rows are T steps apart. All but the last three may be null at once.
struct Kept {
  float *u0, *u1;    // [Hd] in front of the norms of x0 and x1
  float *x;          // [2 Hd] x0 and x1
  float *v, *q;      // [D] in front of the norm of q, and q
  float *gru;        // [3 D]
  float *o, *p;      // [Hd] in front of the norm of o, and SiLU(norm(o))
};

namespace {

struct Shape {
  int D, H, SK, G, block;
};

inline Shape shape(const Core &c) {
  return {c.deter, c.hidden, c.variables * c.classes, c.blocks, c.deter / c.blocks};
}

inline Kept step_of(const Kept &k, const Shape &s, long at) {
  return {move(k.u0, at * s.H), move(k.u1, at * s.H),     move(k.x, at * 2 * s.H),
          move(k.v, at * s.D),  move(k.q, at * s.D),      move(k.gru, at * 3 * s.D),
          move(k.o, at * s.H),  move(k.p, at * s.H)};
}

// h' of n rows; kept rows are `apart` rows apart; h and z have row strides of their own, and
// action(i) points to what q reads of row i's.
template <typename Action>
void sequence(const Core &c, int n, const float *h, long ldh, const float *z, long ldz,
              const Action &action, const Kept &k, long apart, float *out, long ldo) {
  const Shape s = shape(c);
  const long H = s.H * apart, D = s.D * apart;
  product(n, s.H, s.D, h, ldh, c.w0, c.b0, k.u0, H);
  for (int i = 0; i < n; i++) {
    float *u1 = k.u1 + i * H, *x = k.x + i * 2 * H;
    std::memcpy(u1, c.b1, s.H * 4);
    for (int j = 0; j < s.SK; j++) {  // one class of each variable is 1, or none at a reset
      const float weight = z[i * ldz + j];
      if (weight == 0.0f) continue;
      const float *row = c.w1 + static_cast<long>(j) * s.H;
#pragma omp simd
      for (int m = 0; m < s.H; m++) u1[m] += weight * row[m];
    }
    norm_silu(s.H, k.u0 + i * H, c.g0, x);
    norm_silu(s.H, u1, c.g1, x + s.H);
    std::memcpy(k.v + i * D, action(i), s.D * 4);
  }
  product(n, s.D, 2 * s.H, k.x, 2 * H, c.common, nullptr, k.v, D);
  const long packed_own = static_cast<long>(s.block) * padded(s.block);
  const long packed_gru = static_cast<long>(s.block) * padded(3 * s.block);
  for (int g = 0; g < s.G; g++)
    product(n, s.block, s.block, h + g * s.block, ldh, c.own + g * packed_own, nullptr,
            k.v + g * s.block, D);
  for (int i = 0; i < n; i++) norm_silu(s.D, k.v + i * D, c.gain, k.q + i * D);
  for (int g = 0; g < s.G; g++)
    product(n, 3 * s.block, s.block, k.q + g * s.block, D, c.gru + g * packed_gru,
            c.gru_bias + g * 3 * s.block, k.gru + g * 3 * s.block, 3 * D);
  for (int i = 0; i < n; i++)
    for (int g = 0; g < s.G; g++) {
      const float *gates = k.gru + i * 3 * D + g * 3 * s.block;
      const float *old = h + i * ldh + g * s.block;
      float *fresh = out + i * ldo + g * s.block;
#pragma omp simd
      for (int j = 0; j < s.block; j++) {
        const float reset = sigmoid(gates[j]);
        const float cand = tangent(reset * gates[s.block + j]);
        const float update = sigmoid(gates[2 * s.block + j] - 1.0f);
        fresh[j] = update * cand + (1.0f - update) * old[j];
      }
    }
}

// probs = softmax of each variable's logits.
inline void softmax(const Core &c, const float *logits, float *probs) {
  const int K = c.classes, SK = c.variables * K;
  for (int s = 0; s < SK; s += K) {
    float most = logits[s];
    for (int k = 1; k < K; k++) most = logits[s + k] > most ? logits[s + k] : most;
    for (int k = 0; k < K; k++) probs[s + k] = logits[s + k] - most;
  }
#pragma omp simd
  for (int j = 0; j < SK; j++) probs[j] = exponential(probs[j]);
  for (int s = 0; s < SK; s += K) {
    float sum = 0.0f;
    for (int k = 0; k < K; k++) sum += probs[s + k];
    const float inverse = 1.0f / sum;
    for (int k = 0; k < K; k++) probs[s + k] *= inverse;
  }
}

// One-hot samples of one row by the inverse CDF of uniform noise, or of given classes.
inline void sample(const Core &c, const float *logits, const float *noise, const int64_t *chosen,
                   float *probs, float *z) {
  const int K = c.classes;
  const float uniform = c.share / static_cast<float>(K);
  if (!chosen) softmax(c, logits, probs);
  for (int s = 0; s < c.variables; s++) {
    long index = chosen ? chosen[s] : 0;
    if (!chosen) {
      float *p = probs + s * K;
      float sum = 0.0f;
      for (int k = 0; k < K; k++) p[k] = sum += (1.0f - c.share) * p[k] + uniform;
      const float threshold = noise[s] * sum;
      for (int k = 0; k < K; k++) index += p[k] <= threshold;
      index = index < K ? index : K - 1;
    }
    for (int k = 0; k < K; k++) z[s * K + k] = k == index ? 1.0f : 0.0f;
  }
}

// Memory for what is not kept of `rows` rows.
inline Kept scratch(const Shape &s, long rows, std::vector<float> &memory) {
  memory.resize(rows * (6 * s.H + 5 * s.D));
  float *at = memory.data();
  const auto take = [&](long width) {
    float *taken = at;
    at += rows * width;
    return taken;
  };
  return {take(s.H), take(s.H), take(2 * s.H), take(s.D), take(s.D), take(3 * s.D), take(s.H),
          take(s.H)};
}

// Logits of z after h', and what is kept on the way; token(i) points to what o reads of row i's.
template <typename Token>
void posterior(const Core &c, int n, const float *h, long ldh, const Token &token, const Kept &k,
               long apart, float *logits, long ldl) {
  const Shape s = shape(c);
  const long H = apart * s.H;
  for (int i = 0; i < n; i++) std::memcpy(k.o + i * H, token(i), s.H * 4);
  product(n, s.H, s.D, h, ldh, c.wo, nullptr, k.o, H);
  for (int i = 0; i < n; i++) norm_silu(s.H, k.o + i * H, c.go, k.p + i * H);
  product(n, s.SK, s.H, k.p, H, c.wl, c.bl, logits, ldl);
}

}  // namespace
