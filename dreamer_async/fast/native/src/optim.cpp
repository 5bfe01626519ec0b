// One step of the optimiser: adaptive gradient clipping and LaProp, each tensor in one go.

#include <cmath>

#include "structs.h"
#include "threads.h"

namespace {

float norm(long size, const float *x) {
  float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
  for (long i = 0; i < size; i++) squares += x[i] * x[i];
  return std::sqrt(squares);
}

void step(OptimTensor &t, const OptimSettings &s) {
  const float bound = s.clip * std::fmax(s.floor, norm(t.size, t.parameter));
  const float excess = std::fmax(1.0f, norm(t.size, t.gradient) / bound);
  float updates = 0.0f, parameters = 0.0f;
#pragma omp simd reduction(+ : updates, parameters)
  for (long i = 0; i < t.size; i++) {
    const float g = t.gradient[i] / excess;
    t.rms[i] = s.beta_rms * t.rms[i] + (1.0f - s.beta_rms) * g * g;
    const float direction = g / (std::sqrt(t.rms[i] / s.correct_rms) + s.eps);
    t.momentum[i] = s.beta_momentum * t.momentum[i] + (1.0f - s.beta_momentum) * direction;
    const float update = s.rate * (t.momentum[i] / s.correct_momentum);
    t.parameter[i] -= update;
    updates += update * update;
    parameters += t.parameter[i] * t.parameter[i];
  }
  t.update_squares = updates;
  t.parameter_squares = parameters;
}

}  // namespace

extern "C" void optimiser_step(OptimTensor *tensors, long count, const OptimSettings *settings,
                               int threads) {
  parallel_for(count, threads, [&](long i) { step(tensors[i], *settings); });
}
