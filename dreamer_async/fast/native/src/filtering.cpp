// Filtering: many steps of a few rows, and back through them.
//
// Rows are independent, so that a thread takes its rows through all steps and never waits.

#include "recurrent.h"
#include "threads.h"

namespace {

void observe_rows(const Core &c, const Filtering &o, const Activations &activations, long first,
                  long rows) {
  const Shape s = shape(c);
  const int n = static_cast<int>(rows);
  const long T = o.steps;
  thread_local std::vector<float> memory, spare;
  memory.resize(rows * (s.D + s.SK) + s.SK);
  float *h = memory.data(), *z = h + rows * s.D, *probs = z + rows * s.SK;
  const bool saves = activations.saved;
  const Activations all = saves ? activations : scratch(s, rows, spare);
  const long apart = saves ? T : 1;
  for (long t = 0; t < T; t++) {
    const long at = first * T + t;
    for (long i = 0; i < rows; i++) {
      const long now = at + i * T;
      const float *old = t ? o.deter + (now - 1) * s.D : o.deter0 + (first + i) * s.D;
      const float *old_z = t ? o.stoch + (now - 1) * s.SK : o.stoch0 + (first + i) * s.SK;
      for (int j = 0; j < s.D; j++) h[i * s.D + j] = o.keep[now] * old[j];
      for (int j = 0; j < s.SK; j++) z[i * s.SK + j] = o.keep[now] * old_z[j];
    }
    const Activations k = saves ? step_of(all, s, at) : all;
    const auto action = [&](int i) { return o.action + (at + i * T) * s.D; };
    const auto token = [&](int i) { return o.token + (at + i * T) * s.H; };
    float *fresh = o.deter + at * s.D;
    sequence(c, n, h, s.D, z, s.SK, action, k, apart, fresh, T * s.D);
    posterior(c, n, fresh, T * s.D, token, k, apart, o.logits + at * s.SK, T * s.SK);
    for (int i = 0; i < n; i++) {
      const long now = at + i * T;
      sample(c, o.logits + now * s.SK, offset(o.noise, now * c.variables),
             offset(o.chosen, now * c.variables), probs, o.stoch + now * s.SK);
    }
  }
}

}  // namespace

// Filter all steps, in `pieces` of the B rows. activations.saved 0: nothing is saved.
extern "C" void observe_forward(const Core *core, const Filtering *filtering,
                                const Activations *activations, long rows, long pieces,
                                int threads) {
  parallel_for(pieces, threads, [&](long i) {
    const long first = rows * i / pieces;
    observe_rows(*core, *filtering, *activations, first, rows * (i + 1) / pieces - first);
  });
}

namespace {

// Samples pass their gradient on to the probabilities: dl = dlogits + what comes through z = dz.
void samples_backward(const Core &c, const float *logits, const float *dlogits, const float *dz,
                      float *probs, float *dl) {
  softmax(c.variables, c.classes, logits, probs);
  softmax_backward(c.variables, c.classes, c.unimix, probs, dz, dl);
  for (int j = 0; j < c.variables * c.classes; j++) dl[j] += dlogits[j];
}

// The gradients of one block's gates, and of h without the gates'; floats or vectors.
template <typename T>
struct GateGradients {
  T reset, inner, update, h;
};

// From dnew = dL/dh'. Returned in a whole, since a pointer to T would promise the alignment of a
// vector, which those here do not have.
template <typename T>
inline GateGradients<T> gate_backward(T reset, T inner, T update, T h, T dnew) {
  reset = sigmoid(reset);
  update = sigmoid(update - 1.0f);
  const T cand = tanh_of(reset * inner);
  const T through = dnew * update * (1.0f - cand * cand);
  return {through * inner * reset * (1.0f - reset), through * reset,
          dnew * (cand - h) * update * (1.0f - update), dnew * (1.0f - update)};
}

void gates_backward(int block, const float *gates, const float *h, const float *dnew, float *dgates,
                    float *dh) {
  float *dreset = dgates, *dinner = dgates + block, *dupdate = dgates + 2 * block;
  const float *inner = gates + block, *update = gates + 2 * block;
  int j = 0;
  for (; j + LANES <= block; j += LANES) {
    const auto d = gate_backward(load_vec(gates + j), load_vec(inner + j), load_vec(update + j),
                                 load_vec(h + j), load_vec(dnew + j));
    store_vec(dreset + j, d.reset);
    store_vec(dinner + j, d.inner);
    store_vec(dupdate + j, d.update);
    store_vec(dh + j, d.h);
  }
  for (; j < block; j++) {
    const auto d = gate_backward(gates[j], inner[j], update[j], h[j], dnew[j]);
    dreset[j] = d.reset;
    dinner[j] = d.inner;
    dupdate[j] = d.update;
    dh[j] = d.h;
  }
}

void observe_rows_backward(const Core &c, const Filtering &o, const Activations &activations,
                           const FilteringGradients &d, long piece, long first, long rows) {
  const Shape s = shape(c);
  const int n = static_cast<int>(rows);
  const long T = o.steps;
  float *dg0 = d.g0 + piece * s.H, *dg1 = d.g1 + piece * s.H;
  float *dgain = d.gain + piece * s.D, *dgo = d.go + piece * s.H;
  thread_local std::vector<float> memory;
  memory.assign(rows * (3 * s.D + 2 * s.H + s.SK) + 2 * s.SK + 3 * s.D + 2 * s.H, 0.0f);
  float *dh = memory.data();           // [rows, D] of the state after the step
  float *dz = dh + rows * s.D;         // [rows, S K]
  float *old = dz + rows * s.SK;       // [rows, D] the state before it, cleared at a reset
  float *dold = old + rows * s.D;      // [rows, D]
  float *dx = dold + rows * s.D;       // [rows, 2 Hd]
  float *probs = dx + rows * 2 * s.H;  // [S K]
  const float *zeros = probs + s.SK;
  const long own_t = packed_size(c.bfloat16, s.block, s.block);
  const long gru_t = packed_size(c.bfloat16, 3 * s.block, s.block);
  for (long t = T - 1; t >= 0; t--) {
    const long at = first * T + t;
    const Activations k = step_of(activations, s, at);
    const long H = T * s.H, D = T * s.D, SK = T * s.SK;
    float *du0 = d.u0 + at * s.H, *du1 = d.u1 + at * s.H, *dv = d.v + at * s.D;
    float *dgru = d.gru + at * 3 * s.D, *dout = d.o + at * s.H, *dl = d.l + at * s.SK;
    for (long i = 0; i < rows; i++) {
      const long now = at + i * T;
      const float *before = t ? o.deter + (now - 1) * s.D : o.deter0 + (first + i) * s.D;
      for (int j = 0; j < s.D; j++) old[i * s.D + j] = o.keep[now] * before[j];
      for (int j = 0; j < s.D; j++) dh[i * s.D + j] += d.deter[now * s.D + j];
      for (int j = 0; j < s.SK; j++) dz[i * s.SK + j] += d.stoch[now * s.SK + j];
      samples_backward(c, o.logits + now * s.SK, d.logits + now * s.SK, dz + i * s.SK, probs,
                       dl + i * SK);
    }
    gemm(c.bfloat16, n, s.H, s.SK, dl, SK, c.wl_t, zeros, dout, H);
    for (int i = 0; i < n; i++) norm_silu_backward(s.H, k.o + i * H, c.go, dout + i * H, dgo);
    gemm(c.bfloat16, n, s.D, s.H, dout, H, c.wo_t, nullptr, dh, s.D);
    for (int i = 0; i < n; i++)
      for (int g = 0; g < s.D; g += s.block)
        gates_backward(s.block, k.gru + i * 3 * D + 3 * g, old + i * s.D + g, dh + i * s.D + g,
                       dgru + i * 3 * D + 3 * g, dold + i * s.D + g);
    for (int g = 0; g < s.G; g++)
      gemm(c.bfloat16, n, s.block, 3 * s.block, dgru + 3 * g * s.block, 3 * D,
           c.gru_t + g * gru_t, zeros, dv + g * s.block, D);
    for (int i = 0; i < n; i++) norm_silu_backward(s.D, k.v + i * D, c.gain, dv + i * D, dgain);
    for (int g = 0; g < s.G; g++)
      gemm(c.bfloat16, n, s.block, s.block, dv + g * s.block, D, c.own_t + g * own_t, nullptr,
           dold + g * s.block, s.D);
    gemm(c.bfloat16, n, 2 * s.H, s.D, dv, D, c.common_t, zeros, dx, 2 * s.H);
    for (int i = 0; i < n; i++) {
      std::memcpy(du0 + i * H, dx + i * 2 * s.H, s.H * 4);
      std::memcpy(du1 + i * H, dx + i * 2 * s.H + s.H, s.H * 4);
      norm_silu_backward(s.H, k.u0 + i * H, c.g0, du0 + i * H, dg0);
      norm_silu_backward(s.H, k.u1 + i * H, c.g1, du1 + i * H, dg1);
    }
    gemm(c.bfloat16, n, s.D, s.H, du0, H, c.w0_t, nullptr, dold, s.D);
    gemm(c.bfloat16, n, s.SK, s.H, du1, H, c.w1_t, zeros, dz, s.SK);
    for (long i = 0; i < rows; i++) {
      const float live = o.keep[at + i * T];
      for (int j = 0; j < s.D; j++) dh[i * s.D + j] = live * dold[i * s.D + j];
      for (int j = 0; j < s.SK; j++) dz[i * s.SK + j] *= live;
    }
  }
}

}  // namespace

// Back through the steps, in the same pieces.
extern "C" void observe_backward(const Core *core, const Filtering *filtering,
                                 const Activations *activations,
                                 const FilteringGradients *gradients, long rows, long pieces,
                                 int threads) {
  parallel_for(pieces, threads, [&](long i) {
    const long first = rows * i / pieces;
    observe_rows_backward(*core, *filtering, *activations, *gradients, i, first,
                          rows * (i + 1) / pieces - first);
  });
}
