// Actions: sampled from the outputs of the actor, and as the world model reads them.

#pragma once

#include "recurrent.h"

namespace {

inline int width(const Actor &a, bool embedded) {
  int sum = 0;
  for (int i = 0; i < a.parts; i++) sum += a.discrete[i] && !embedded ? 1 : a.sizes[i];
  return sum;
}

inline int sample_part(int size, const float *logits, float noise, float *cdf) {
  float most = logits[0], sum = 0.0f;
  for (int k = 1; k < size; k++) most = logits[k] > most ? logits[k] : most;
  for (int k = 0; k < size; k++) cdf[k] = sum += exponential(logits[k] - most);
  int index = 0;
  for (int k = 0; k < size; k++) index += cdf[k] <= noise * sum;
  return index < size ? index : size - 1;
}

// Sample the action of one row, or take the chosen one, which needs no parameters, and embed it:
// classes one-hot, numbers scaled into [-1, 1].
inline void act(const Actor &a, const float *params, const float *noise, const double *chosen,
         float *action, float *embedded) {
  for (int i = 0; i < a.parts; i++) {
    const int size = a.sizes[i];
    if (a.discrete[i]) {
      const int index = chosen ? static_cast<int>(*chosen)
                               : sample_part(size, params, *noise, embedded);
      *action = static_cast<float>(index);
      for (int k = 0; k < size; k++) embedded[k] = k == index ? 1.0f : 0.0f;
    } else {
      for (int k = 0; k < size; k++) {
        float x;
        if (chosen) {
          x = static_cast<float>(chosen[k]);
        } else {
          const float deviation = (a.most - a.least) * sigmoid(params[size + k] + 2.0f) + a.least;
          x = tanh_of(params[k]) + deviation * noise[k];
        }
        action[k] = x;
        embedded[k] = x / (std::fabs(x) > 1.0f ? std::fabs(x) : 1.0f);
      }
    }
    const int columns = a.discrete[i] ? 1 : size;
    params += a.discrete[i] ? size : 2 * size;
    embedded += size;
    action += columns;
    noise = offset(noise, columns);
    chosen = offset(chosen, columns);
  }
}

// What q reads of n actions: a function of the row. `scratch` has room for [n, D].
inline auto action_part(const ActionPart &p, int n, const float *actions, long apart,
                        const float *embedded, int A, float *scratch, long D) {
  if (!p.table) forward_tile(p.layers, p.count, n, embedded, A, scratch, D);
  return [&p, actions, apart, scratch, D](int i) -> const float * {
    if (!p.table) return scratch + i * D;
    const long index = static_cast<long>(actions[i * apart]);
    return p.table + (index >= 0 && index < p.classes ? index : p.classes) * D;
  };
}

}  // namespace
