// Scalars as distributions over bins that are mirrored around 0: expected values and losses.

#include <algorithm>
#include <vector>

#include "arithmetic.h"
#include "threads.h"

namespace {

// e = exp(logits - maximum) of one row; returns the maximum, and the sum.
inline float exponentials(int M, const float *logits, float *e, float *sum) {
  float most = logits[0];
  int i = 0;
  if (M >= LANES) {
    vec mosts = load_vec(logits);
    for (i = LANES; i + LANES <= M; i += LANES) mosts = larger(mosts, load_vec(logits + i));
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

constexpr long TILE_ROWS = 128;

// Call work(row) for all rows.
template <typename Work>
void each_row(long rows, int threads, const Work &work) {
  share((rows + TILE_ROWS - 1) / TILE_ROWS, threads, [&](long i) {
    const long end = std::min(rows, (i + 1) * TILE_ROWS);
    for (long row = i * TILE_ROWS; row < end; row++) work(row);
  });
}

struct Target {
  int lower, upper;
  float weight;  // of the lower bin
};

// The bins around x; outside them the nearest one alone. NaN gives a NaN weight.
inline Target around(int M, const float *bins, float x) {
  const int above = static_cast<int>(std::upper_bound(bins, bins + M, x) - bins);
  const int lower = std::max(above - 1, 0), upper = std::min(above, M - 1);
  const float to_lower = std::fabs(bins[lower] - x), to_upper = std::fabs(bins[upper] - x);
  const bool same = lower == upper && x == x;
  return {lower, upper, same ? 1.0f : to_upper / (to_lower + to_upper)};
}

}  // namespace

// mean[i] = sum of p b, mirrored pairs first: symmetric logits give exactly 0.
extern "C" void twohot_mean(int M, const float *bins, long rows, const float *logits, float *mean,
                            int threads) {
  const int half = M / 2;
  each_row(rows, threads, [&](long row) {
    thread_local std::vector<float> e;
    e.resize(M);
    float sum, value = 0.0f;
    exponentials(M, logits + row * M, e.data(), &sum);
    const float *low = e.data(), *high = low + M - half, *at = bins + M - half;
#pragma omp simd reduction(+ : value)
    for (int i = 0; i < half; i++) value += (high[i] - low[half - 1 - i]) * at[i];
    mean[row] = value / sum;
  });
}

// loss[i] = sum over j of weights[j] * cross entropy of the two-hot target[i, j].
extern "C" void twohot_loss(int M, const float *bins, int J, const float *weights, long rows,
                            const float *logits, const float *targets, float *loss, int threads) {
  each_row(rows, threads, [&](long row) {
    thread_local std::vector<float> e;
    e.resize(M);
    const float *l = logits + row * M;
    float sum, total = 0.0f;
    const float most = exponentials(M, l, e.data(), &sum);
    const float norm = most + std::log(sum);
    for (int j = 0; j < J; j++) {
      const Target t = around(M, bins, targets[row * J + j]);
      total -=
          weights[j] * (t.weight * (l[t.lower] - norm) + (1.0f - t.weight) * (l[t.upper] - norm));
    }
    loss[row] = total;
  });
}

// dlogits = dloss * (sum of weights * p - the two-hot targets).
extern "C" void twohot_loss_backward(int M, const float *bins, int J, const float *weights,
                                     long rows, const float *logits, const float *targets,
                                     const float *dloss, float *dlogits, int threads) {
  float all = 0.0f;
  for (int j = 0; j < J; j++) all += weights[j];
  each_row(rows, threads, [&](long row) {
    float *d = dlogits + row * M, sum;
    exponentials(M, logits + row * M, d, &sum);
    const float scale = dloss[row] * all / sum;
#pragma omp simd
    for (int i = 0; i < M; i++) d[i] *= scale;
    for (int j = 0; j < J; j++) {
      const Target t = around(M, bins, targets[row * J + j]);
      d[t.lower] -= dloss[row] * weights[j] * t.weight;
      d[t.upper] -= dloss[row] * weights[j] * (1.0f - t.weight);
    }
  });
}
