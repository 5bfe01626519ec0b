// Acting: one step of filtering, and an action for each row.

#include "actor.h"

namespace {

void act_rows(const Core &c, const Actor &a, const Acting &x, long first, int n) {
  const Shape s = shape(c);
  const int C = width(a, false), A = width(a, true), E = x.token->inputs;
  const int P = a.layers[a.count - 1].outputs;
  const long ld = padded_stride(s.D + s.SK);
  thread_local std::vector<float> memory, own;
  memory.resize(n * (2 * ld + A + C + s.D + s.H + s.SK + P) + s.SK);
  float *state = memory.data(), *next = state + n * ld, *embedded = next + n * ld;
  float *last_action = embedded + n * A, *part = last_action + n * C, *token = part + n * s.D;
  float *logits = token + n * s.H, *params = logits + n * s.SK, *probs = params + n * P;
  for (int i = 0; i < n; i++) {
    const long at = first + i;
    float *h = state + i * ld;
    act(a, nullptr, nullptr, x.last_action + at * C, last_action + i * C, embedded + i * A);
    if (x.reset[at]) {
      std::memset(h, 0, (s.D + s.SK) * 4);
      std::memset(embedded + i * A, 0, A * 4);
      last_action[i * C] = -1.0f;  // no class
    } else {
      std::memcpy(h, x.deter + at * s.D, s.D * 4);
      std::memcpy(h + s.D, x.stoch + at * s.SK, s.SK * 4);
    }
  }
  const Activations k = scratch(s, n, own);
  const auto action = action_part(x.action, n, last_action, C, embedded, A, part, s.D);
  sequence(c, n, state, ld, state + s.D, ld, action, k, 1, next, ld);
  forward_tile(x.token, 1, n, x.embed + first * E, E, token, s.H);
  posterior(c, n, next, ld, [&](int i) { return token + i * s.H; }, k, 1, logits, s.SK);
  for (int i = 0; i < n; i++) {
    const long at = first + i;
    float *z = next + i * ld + s.D;
    sample(c, logits + i * s.SK, offset(x.noise, at * c.variables),
           offset(x.chosen, at * c.variables), probs, z);
    std::memcpy(x.new_deter + at * s.D, next + i * ld, s.D * 4);
    std::memcpy(x.new_stoch + at * s.SK, z, s.SK * 4);
  }
  forward_tile(a.layers, a.count, n, next, ld, params, P);
  for (int i = 0; i < n; i++) {
    const long at = (first + i) * C;
    act(a, params + i * P, offset(x.action_noise, at), offset(x.chosen_actions, at), x.actions + at,
        embedded + i * A);
  }
}

}  // namespace

// One step of `rows` rows, a tile of them after the other.
extern "C" void act_forward(const Core *core, const Actor *actor, const Acting *acting, long rows) {
  for (long at = 0; at < rows; at += TILE_ROWS)
    act_rows(*core, *actor, *acting, at, tile_from(at, rows));
}
