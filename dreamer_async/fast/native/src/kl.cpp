// KL divergences between posteriors and priors of many rows, and entropies.
//
// Both are (1 - unimix) softmax + unimix / K, and so never 0.

#include <cmath>
#include <vector>

#include "categorical.h"
#include "structs.h"
#include "threads.h"

namespace {

constexpr long TILE_ROWS = 64;

// softmax, the same mixed, and the logarithm of that, of one row.
struct Row {
  std::vector<float> probs, mixed, logs;

  void set(const Categorical &c, const float *logits) {
    const int SK = c.variables * c.classes;
    for (auto *x : {&probs, &mixed, &logs}) x->resize(SK);
    softmax(c.variables, c.classes, logits, probs.data());
    mix_uniform(c.variables, c.classes, c.unimix, probs.data(), mixed.data());
    each_vector(SK, mixed.data(), logs.data(), [](int, vec x) { return logarithm(x); });
  }
};

// work(row, posterior, prior) for all rows.
template <typename Work>
void each_row(const Categorical &c, long rows, const float *posterior, const float *prior,
              int threads, const Work &work) {
  const long SK = c.variables * c.classes;
  parallel_for((rows + TILE_ROWS - 1) / TILE_ROWS, threads, [&](long i) {
    thread_local Row p, q;
    const long end = (i + 1) * TILE_ROWS < rows ? (i + 1) * TILE_ROWS : rows;
    for (long row = i * TILE_ROWS; row < end; row++) {
      p.set(c, posterior + row * SK);
      q.set(c, prior + row * SK);
      work(row, p, q);
    }
  });
}

}  // namespace

// kl[i] = KL(posterior || prior), entropies of both: summed over the variables of a row.
extern "C" void kl_forward(const Categorical *c, long rows, const float *posterior,
                           const float *prior, float *kl, float *entropy, float *prior_entropy,
                           int threads) {
  const int SK = c->variables * c->classes;
  each_row(*c, rows, posterior, prior, threads, [&](long row, const Row &p, const Row &q) {
    float cross = 0.0f, own = 0.0f, other = 0.0f;
#pragma omp simd reduction(+ : cross, own, other)
    for (int j = 0; j < SK; j++) {
      cross += p.mixed[j] * (p.logs[j] - q.logs[j]);
      own -= p.mixed[j] * p.logs[j];
      other -= q.mixed[j] * q.logs[j];
    }
    kl[row] = cross;
    entropy[row] = own;
    prior_entropy[row] = other;
  });
}

// dposterior = drep dKL/dposterior, dprior = ddyn dKL/dprior.
extern "C" void kl_backward(const Categorical *c, long rows, const float *posterior,
                            const float *prior, const float *drep, const float *ddyn,
                            float *dposterior, float *dprior, int threads) {
  const int S = c->variables, K = c->classes, SK = S * K;
  each_row(*c, rows, posterior, prior, threads, [&](long row, const Row &p, const Row &q) {
    thread_local std::vector<float> memory;
    memory.resize(2 * SK);
    float *dp = memory.data(), *dq = dp + SK;
    const float rep = drep[row], dyn = ddyn[row];
    for (int j = 0; j < SK; j++) {
      dp[j] = rep * (p.logs[j] - q.logs[j]);  // and 1, which softmax does not pass on
      dq[j] = -dyn * p.mixed[j] / q.mixed[j];
    }
    softmax_backward(S, K, c->unimix, p.probs.data(), dp, dposterior + row * SK);
    softmax_backward(S, K, c->unimix, q.probs.data(), dq, dprior + row * SK);
  });
}
