// Distributions over bins that are mirrored around 0: one row.

#pragma once

#include <vector>

#include "vectors.h"

namespace {

// e = exp(logits - maximum) of one row; returns the maximum, and the sum.
inline float exponentials(int M, const float *logits, float *e, float *sum) {
  float most = logits[0];
  int i = 0;
  if (M >= LANES) {
    vec mosts = load_vec(logits);
    for (i = LANES; i + LANES <= M; i += LANES) mosts = maximum(mosts, load_vec(logits + i));
    for (int l = 0; l < LANES; l++) most = mosts[l] > most ? mosts[l] : most;
  }
  for (; i < M; i++) most = logits[i] > most ? logits[i] : most;
  // Not one by one at the end, either: mirrored logits must give the same numbers.
  each_vector(M, logits, e, [=](int, vec x) { return exponential(x - most); });
  float total = 0.0f;
#pragma omp simd reduction(+ : total)
  for (i = 0; i < M; i++) total += e[i];
  *sum = total;
  return most;
}

// Sum of p b, mirrored pairs first: symmetric logits give exactly 0.
inline float mean_of(int M, const float *bins, const float *logits) {
  thread_local std::vector<float> e;
  e.resize(M);
  float sum, value = 0.0f;
  exponentials(M, logits, e.data(), &sum);
  const int half = M / 2;
  const float *low = e.data(), *high = low + M - half, *at = bins + M - half;
#pragma omp simd reduction(+ : value)
  for (int i = 0; i < half; i++) value += (high[i] - low[half - 1 - i]) * at[i];
  return value / sum;
}

}  // namespace
