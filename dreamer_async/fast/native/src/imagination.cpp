// Imagination: many rows take all their steps without observations, and heads read every state.

#include <algorithm>

#include "actor.h"
#include "threads.h"
#include "twohot.h"

namespace {

// What a head says of n states; their rows in its results are `at`, at + apart, ...
void read(const Head &head, long at, long apart, int n, const float *state, long ld, float *out) {
  const int N = head.layers[head.count - 1].outputs;
  forward_tile(head.layers, head.count, at, apart, n, state, ld, out, N);
  for (int i = 0; i < n; i++) {
    const long row = at + i * apart;
    if (head.y) std::memcpy(head.y + row * N, out + i * N, N * 4);
    if (head.bins) head.mean[row] = mean_of(N, head.bins, out + i * N);
  }
}

void imagine_rows(const Core &c, const Actor &a, const Imagination &im, long first, int n) {
  const Shape s = shape(c);
  const int F = s.D + s.SK, C = width(a, false), A = width(a, true);
  int most = 0;
  for (int i = 0; i < im.head_count; i++) {
    const Head &head = im.heads[i];
    most = std::max(most, head.layers[head.count - 1].outputs);
  }
  const int P = a.layers[a.count - 1].outputs;
  const long H = im.horizon, ld = padded_stride(F);
  thread_local std::vector<float> memory, own;
  memory.resize(n * (2 * ld + most + A + s.D + s.SK) + s.SK);
  float *state = memory.data(), *next = state + n * ld, *out = next + n * ld;
  float *embedded = out + n * most, *part = embedded + n * A;
  float *logits = part + n * s.D, *probs = logits + n * s.SK;
  const auto feat = [&](int i, long t) { return im.feat + ((first + i) * (H + 1) + t) * F; };
  for (int i = 0; i < n; i++) std::memcpy(state + i * ld, feat(i, 0), F * 4);
  for (long t = 0;; t++) {
    // The actor last, whose outputs the action comes from.
    for (int i = im.head_count - 1; i >= 0; i--)
      read(im.heads[i], first * (H + 1) + t, H + 1, n, state, ld, out);
    if (t == H) break;
    for (int i = 0; i < n; i++) {
      const long at = ((first + i) * H + t) * C;
      act(a, out + i * P, offset(im.action_noise, at), offset(im.chosen_actions, at),
          im.actions + at, embedded + i * A);
    }
    const float *first_action = im.actions + (first * H + t) * C;
    const auto action = action_part(im.action, n, first_action, H * C, embedded, A, part, s.D);
    sequence(c, n, state, ld, state + s.D, ld, action, scratch(s, n, own), 1, next, ld);
    forward_tile(im.prior, im.prior_count, n, next, ld, logits, s.SK);
    for (int i = 0; i < n; i++) {
      const long at = ((first + i) * H + t) * c.variables;
      sample(c, logits + i * s.SK, offset(im.noise, at), offset(im.chosen, at), probs,
             next + i * ld + s.D);
      std::memcpy(feat(i, t + 1), next + i * ld, F * 4);
    }
    float *swap = state;
    state = next;
    next = swap;
  }
}

}  // namespace

// Roll out all steps of R rows; a tile of rows goes through all of them while it is in the cache.
// An even number of tiles of about the same size keeps two threads busy to the end.
extern "C" void imagine_forward(const Core *core, const Actor *actor,
                                const Imagination *imagination, long rows, int threads) {
  const long tiles = std::max(2L, (rows + 2 * TILE_ROWS - 1) / (2 * TILE_ROWS) * 2);
  const auto from = [&](long i) {  // rounded up to whole pairs, so that no tile exceeds TILE_ROWS
    return std::min(rows, (rows * i + 2 * tiles - 1) / (2 * tiles) * 2);
  };
  parallel_for(tiles, threads, [&](long i) {
    const long first = from(i);
    imagine_rows(*core, *actor, *imagination, first, static_cast<int>(from(i + 1) - first));
  });
}
