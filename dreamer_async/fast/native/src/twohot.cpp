// Scalars as distributions over bins that are mirrored around 0: expected values and losses.

#include <algorithm>
#include <vector>

#include "threads.h"
#include "twohot.h"

namespace {

constexpr long TILE_ROWS = 128;

// Call work(row) for all rows.
template <typename Work>
void each_row(long rows, int threads, const Work &work) {
  parallel_for((rows + TILE_ROWS - 1) / TILE_ROWS, threads, [&](long i) {
    const long end = std::min(rows, (i + 1) * TILE_ROWS);
    for (long row = i * TILE_ROWS; row < end; row++) work(row);
  });
}

struct TwoHot {
  int lower, upper;
  float weight;  // of the lower bin
};

// The bins around x; outside them the nearest one alone. NaN gives a NaN weight.
inline TwoHot two_hot(int M, const float *bins, float x) {
  const int above = static_cast<int>(std::upper_bound(bins, bins + M, x) - bins);
  const int lower = std::max(above - 1, 0), upper = std::min(above, M - 1);
  const float to_lower = std::fabs(bins[lower] - x), to_upper = std::fabs(bins[upper] - x);
  const bool same = lower == upper && x == x;
  return {lower, upper, same ? 1.0f : to_upper / (to_lower + to_upper)};
}

}  // namespace

extern "C" void twohot_mean(int M, const float *bins, long rows, const float *logits, float *mean,
                            int threads) {
  each_row(rows, threads, [&](long row) { mean[row] = mean_of(M, bins, logits + row * M); });
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
      const TwoHot t = two_hot(M, bins, targets[row * J + j]);
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
      const TwoHot t = two_hot(M, bins, targets[row * J + j]);
      d[t.lower] -= dloss[row] * weights[j] * t.weight;
      d[t.upper] -= dloss[row] * weights[j] * (1.0f - t.weight);
    }
  });
}
