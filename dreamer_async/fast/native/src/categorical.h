// Categorical variables side by side: S of K classes each.

#pragma once

#include "vectors.h"

namespace {

// probs = softmax of each variable's logits.
inline void softmax(int S, int K, const float *logits, float *probs) {
  const int SK = S * K;
  if (K == 4) return each_vector(SK, logits, probs, [](int, vec x) { return softmax_of_fours(x); });
  for (int s = 0; s < SK; s += K) {
    float most = logits[s];
    for (int k = 1; k < K; k++) most = logits[s + k] > most ? logits[s + k] : most;
    for (int k = 0; k < K; k++) probs[s + k] = logits[s + k] - most;
  }
  each_vector(SK, probs, probs, [](int, vec x) { return exponential(x); });
  for (int s = 0; s < SK; s += K) {
    float sum = 0.0f;
    for (int k = 0; k < K; k++) sum += probs[s + k];
    const float inverse = 1.0f / sum;
    for (int k = 0; k < K; k++) probs[s + k] *= inverse;
  }
}

// The same with a share of the uniform distribution mixed in.
inline void mix_uniform(int S, int K, float unimix, const float *probs, float *mixed) {
  const float uniform = unimix / static_cast<float>(K);
  each_vector(S * K, probs, mixed, [=](int, vec p) { return (1.0f - unimix) * p + uniform; });
}

// Through mix and softmax: dlogits = what g = dL/dmixed becomes.
inline void softmax_backward(int S, int K, float unimix, const float *probs, const float *g,
                             float *dlogits) {
  for (int v = 0; v < S * K; v += K) {
    float dot = 0.0f;
    for (int j = v; j < v + K; j++) dot += probs[j] * g[j];
    for (int j = v; j < v + K; j++) dlogits[j] = (1.0f - unimix) * probs[j] * (g[j] - dot);
  }
}

}  // namespace
