// The recurrent state-space model: many steps of a few rows (observe), one step of many (imagine).
//
// Rows are independent, so that a thread takes its rows through all steps and never waits.
//
//   x0 = SiLU(norm(W0 h + b0)), x1 = SiLU(norm(W1 z + b1))
//   q  = SiLU(norm(action + own_g h_g + common [x0, x1]))        own_g: block-diagonal
//   reset, cand, update = gru_g q_g + b                          block by block
//   h' = u tanh(sigmoid(reset) cand) + (1 - u) h,  u = sigmoid(update - 1)
//   o  = SiLU(norm(token + Wo h')),  logits = Wl o + bl,  z' ~ (1 - share) softmax + share / K
//
// `action` and `token` are the parts that depend on no state: one large product for all steps each,
// made by the caller, biases included. Names with "d" are gradients.

#include "dense.h"
#include "threads.h"

namespace {

template <typename T>
inline T *move(T *p, long by) {
  return p ? p + by : p;
}

}  // namespace

struct Core {
  int deter, hidden, variables, classes, blocks;
  float share;                                   // of the uniform distribution in z's
  const float *w0, *b0, *g0;                     // packed [D, Hd]
  const float *w1, *b1, *g1;                     // not packed [S K, Hd]
  const float *own, *common, *gain;              // G packed [D/G, D/G]; packed [2 Hd, D]; [D]
  const float *gru, *gru_bias;                   // G packed [D/G, 3 D/G]; [3 D], blocks first
  const float *wo, *go, *wl, *bl;                // packed [D, Hd]; packed [Hd, S K]
  // Packed transposes, read by the backward pass alone.
  const float *w0_t, *w1_t, *own_t, *common_t, *gru_t, *wo_t, *wl_t;
};

// One row for each (row, step); rows are T steps apart. All but the last three may be null at once.
struct Kept {
  float *u0, *u1;    // [Hd] in front of the norms of x0 and x1
  float *x;          // [2 Hd] x0 and x1
  float *v, *q;      // [D] in front of the norm of q, and q
  float *gru;        // [3 D]
  float *o, *p;      // [Hd] in front of the norm of o, and SiLU(norm(o))
};

namespace {

struct Shape {
  int D, H, SK, G, block;
};

inline Shape shape(const Core &c) {
  return {c.deter, c.hidden, c.variables * c.classes, c.blocks, c.deter / c.blocks};
}

inline Kept step_of(const Kept &k, const Shape &s, long at) {
  return {move(k.u0, at * s.H), move(k.u1, at * s.H),     move(k.x, at * 2 * s.H),
          move(k.v, at * s.D),  move(k.q, at * s.D),      move(k.gru, at * 3 * s.D),
          move(k.o, at * s.H),  move(k.p, at * s.H)};
}

// h' of n rows; kept rows are `apart` rows apart; h, z and action have row strides of their own.
void sequence(const Core &c, int n, const float *h, long ldh, const float *z, long ldz,
              const float *action, long lda, const Kept &k, long apart, float *out, long ldo) {
  const Shape s = shape(c);
  const long H = s.H * apart, D = s.D * apart;
  product(n, s.H, s.D, h, ldh, c.w0, c.b0, k.u0, H);
  for (int i = 0; i < n; i++) {
    float *u1 = k.u1 + i * H, *x = k.x + i * 2 * H;
    std::memcpy(u1, c.b1, s.H * 4);
    for (int j = 0; j < s.SK; j++) {  // one class of each variable is 1, or none at a reset
      const float weight = z[i * ldz + j];
      if (weight == 0.0f) continue;
      const float *row = c.w1 + static_cast<long>(j) * s.H;
#pragma omp simd
      for (int m = 0; m < s.H; m++) u1[m] += weight * row[m];
    }
    norm_silu(s.H, k.u0 + i * H, c.g0, x);
    norm_silu(s.H, u1, c.g1, x + s.H);
    std::memcpy(k.v + i * D, action + i * lda, s.D * 4);
  }
  product(n, s.D, 2 * s.H, k.x, 2 * H, c.common, nullptr, k.v, D);
  const long packed_own = static_cast<long>(s.block) * padded(s.block);
  const long packed_gru = static_cast<long>(s.block) * padded(3 * s.block);
  for (int g = 0; g < s.G; g++)
    product(n, s.block, s.block, h + g * s.block, ldh, c.own + g * packed_own, nullptr,
            k.v + g * s.block, D);
  for (int i = 0; i < n; i++) norm_silu(s.D, k.v + i * D, c.gain, k.q + i * D);
  for (int g = 0; g < s.G; g++)
    product(n, 3 * s.block, s.block, k.q + g * s.block, D, c.gru + g * packed_gru,
            c.gru_bias + g * 3 * s.block, k.gru + g * 3 * s.block, 3 * D);
  for (int i = 0; i < n; i++)
    for (int g = 0; g < s.G; g++) {
      const float *gates = k.gru + i * 3 * D + g * 3 * s.block;
      const float *old = h + i * ldh + g * s.block;
      float *fresh = out + i * ldo + g * s.block;
#pragma omp simd
      for (int j = 0; j < s.block; j++) {
        const float reset = sigmoid(gates[j]);
        const float cand = tangent(reset * gates[s.block + j]);
        const float update = sigmoid(gates[2 * s.block + j] - 1.0f);
        fresh[j] = update * cand + (1.0f - update) * old[j];
      }
    }
}

// probs = softmax of each variable's logits.
inline void softmax(const Core &c, const float *logits, float *probs) {
  const int K = c.classes, SK = c.variables * K;
  for (int s = 0; s < SK; s += K) {
    float most = logits[s];
    for (int k = 1; k < K; k++) most = logits[s + k] > most ? logits[s + k] : most;
    for (int k = 0; k < K; k++) probs[s + k] = logits[s + k] - most;
  }
#pragma omp simd
  for (int j = 0; j < SK; j++) probs[j] = exponential(probs[j]);
  for (int s = 0; s < SK; s += K) {
    float sum = 0.0f;
    for (int k = 0; k < K; k++) sum += probs[s + k];
    const float inverse = 1.0f / sum;
    for (int k = 0; k < K; k++) probs[s + k] *= inverse;
  }
}

// One-hot samples of one row by the inverse CDF of uniform noise, or of given classes.
inline void sample(const Core &c, const float *logits, const float *noise, const int64_t *chosen,
                   float *probs, float *z) {
  const int K = c.classes;
  const float uniform = c.share / static_cast<float>(K);
  if (!chosen) softmax(c, logits, probs);
  for (int s = 0; s < c.variables; s++) {
    long index = chosen ? chosen[s] : 0;
    if (!chosen) {
      float *p = probs + s * K;
      float sum = 0.0f;
      for (int k = 0; k < K; k++) p[k] = sum += (1.0f - c.share) * p[k] + uniform;
      const float threshold = noise[s] * sum;
      for (int k = 0; k < K; k++) index += p[k] <= threshold;
      index = index < K ? index : K - 1;
    }
    for (int k = 0; k < K; k++) z[s * K + k] = k == index ? 1.0f : 0.0f;
  }
}

// Memory for what is not kept of `rows` rows.
inline Kept scratch(const Shape &s, long rows, std::vector<float> &memory) {
  memory.resize(rows * (6 * s.H + 5 * s.D));
  float *at = memory.data();
  const auto take = [&](long width) {
    float *taken = at;
    at += rows * width;
    return taken;
  };
  return {take(s.H), take(s.H), take(2 * s.H), take(s.D), take(s.D), take(3 * s.D), take(s.H),
          take(s.H)};
}

}  // namespace

// What goes into filtering: deter0 [B, D], stoch0 [B, S K], all else [B, T, *]. keep is 0 where the
// state is cleared. Samples come from uniform noise, or are the chosen classes if there are any.
struct Observed {
  long steps;
  const float *deter0, *stoch0, *action, *token, *keep, *noise;
  const int64_t *chosen;
  float *deter, *stoch, *logits;  // the results
};

namespace {

void observe_rows(const Core &c, const Observed &o, const Kept &kept, long first, long rows) {
  const Shape s = shape(c);
  const int n = static_cast<int>(rows);
  const long T = o.steps;
  thread_local std::vector<float> memory, spare;
  memory.resize(rows * (s.D + s.SK) + s.SK);
  float *h = memory.data(), *z = h + rows * s.D, *probs = z + rows * s.SK;
  const bool keeps = kept.u0 != nullptr;
  const Kept all = keeps ? kept : scratch(s, rows, spare);
  const long apart = keeps ? T : 1;
  for (long t = 0; t < T; t++) {
    const long at = first * T + t;
    for (long i = 0; i < rows; i++) {
      const long now = at + i * T;
      const float *old = t ? o.deter + (now - 1) * s.D : o.deter0 + (first + i) * s.D;
      const float *old_z = t ? o.stoch + (now - 1) * s.SK : o.stoch0 + (first + i) * s.SK;
      for (int j = 0; j < s.D; j++) h[i * s.D + j] = o.keep[now] * old[j];
      for (int j = 0; j < s.SK; j++) z[i * s.SK + j] = o.keep[now] * old_z[j];
    }
    const Kept k = keeps ? step_of(all, s, at) : all;
    sequence(c, n, h, s.D, z, s.SK, o.action + at * s.D, T * s.D, k, apart, o.deter + at * s.D,
             T * s.D);
    for (int i = 0; i < n; i++)
      std::memcpy(k.o + i * apart * s.H, o.token + (at + i * T) * s.H, s.H * 4);
    product(n, s.H, s.D, o.deter + at * s.D, T * s.D, c.wo, nullptr, k.o, apart * s.H);
    for (int i = 0; i < n; i++)
      norm_silu(s.H, k.o + i * apart * s.H, c.go, k.p + i * apart * s.H);
    product(n, s.SK, s.H, k.p, apart * s.H, c.wl, c.bl, o.logits + at * s.SK, T * s.SK);
    for (int i = 0; i < n; i++) {
      const long now = at + i * T;
      sample(c, o.logits + now * s.SK, move(o.noise, now * c.variables),
             move(o.chosen, now * c.variables), probs, o.stoch + now * s.SK);
    }
  }
}

}  // namespace

// Filter all steps, in `pieces` of the B rows. kept.u0 null: nothing is kept.
extern "C" void observe_forward(const Core *core, const Observed *observed, const Kept *kept,
                                long rows, long pieces, int threads) {
  share(pieces, threads, [&](long i) {
    const long first = rows * i / pieces;
    observe_rows(*core, *observed, *kept, first, rows * (i + 1) / pieces - first);
  });
}

// The gradients from outside, and what is left for those of the kernels: [B, T, *] each, and for
// the gains what each piece of rows adds, [pieces, *].
struct Gradients {
  const float *deter, *stoch, *logits;
  float *u0, *u1, *v, *gru, *o, *l;
  float *g0, *g1, *gain, *go;
};

namespace {

// Samples pass their gradient on to the probabilities: dl = dlogits + what comes through z = dz.
void through_samples(const Core &c, const float *logits, const float *dlogits, const float *dz,
                     float *probs, float *dl) {
  const int K = c.classes, SK = c.variables * K;
  softmax(c, logits, probs);
  for (int v = 0; v < SK; v += K) {
    float dot = 0.0f;
    for (int j = v; j < v + K; j++) dot += probs[j] * dz[j];
    for (int j = v; j < v + K; j++)
      dl[j] = dlogits[j] + (1.0f - c.share) * probs[j] * (dz[j] - dot);
  }
}

// From dnew = dL/dh' of one block to its gates, and to h as far as it is kept.
void through_gates(int block, const float *gates, const float *h, const float *dnew, float *dgates,
                   float *dh) {
#pragma omp simd
  for (int j = 0; j < block; j++) {
    const float reset = sigmoid(gates[j]), inner = gates[block + j];
    const float cand = tangent(reset * inner);
    const float update = sigmoid(gates[2 * block + j] - 1.0f);
    const float dinner = dnew[j] * update * (1.0f - cand * cand);
    dgates[j] = dinner * inner * reset * (1.0f - reset);
    dgates[block + j] = dinner * reset;
    dgates[2 * block + j] = dnew[j] * (cand - h[j]) * update * (1.0f - update);
    dh[j] = dnew[j] * (1.0f - update);
  }
}

void unobserve_rows(const Core &c, const Observed &o, const Kept &kept, const Gradients &d,
                    long piece, long first, long rows) {
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
  const long own_t = static_cast<long>(s.block) * padded(s.block);
  const long gru_t = 3 * own_t;
  for (long t = T - 1; t >= 0; t--) {
    const long at = first * T + t;
    const Kept k = step_of(kept, s, at);
    const long H = T * s.H, D = T * s.D, SK = T * s.SK;
    float *du0 = d.u0 + at * s.H, *du1 = d.u1 + at * s.H, *dv = d.v + at * s.D;
    float *dgru = d.gru + at * 3 * s.D, *dout = d.o + at * s.H, *dl = d.l + at * s.SK;
    for (long i = 0; i < rows; i++) {
      const long now = at + i * T;
      const float *before = t ? o.deter + (now - 1) * s.D : o.deter0 + (first + i) * s.D;
      for (int j = 0; j < s.D; j++) old[i * s.D + j] = o.keep[now] * before[j];
      for (int j = 0; j < s.D; j++) dh[i * s.D + j] += d.deter[now * s.D + j];
      for (int j = 0; j < s.SK; j++) dz[i * s.SK + j] += d.stoch[now * s.SK + j];
      through_samples(c, o.logits + now * s.SK, d.logits + now * s.SK, dz + i * s.SK, probs,
                      dl + i * SK);
    }
    product(n, s.H, s.SK, dl, SK, c.wl_t, zeros, dout, H);
    for (int i = 0; i < n; i++) norm_silu_backward(s.H, k.o + i * H, c.go, dout + i * H, dgo);
    product(n, s.D, s.H, dout, H, c.wo_t, nullptr, dh, s.D);
    for (int i = 0; i < n; i++)
      for (int g = 0; g < s.D; g += s.block)
        through_gates(s.block, k.gru + i * 3 * D + 3 * g, old + i * s.D + g, dh + i * s.D + g,
                      dgru + i * 3 * D + 3 * g, dold + i * s.D + g);
    for (int g = 0; g < s.G; g++)
      product(n, s.block, 3 * s.block, dgru + 3 * g * s.block, 3 * D, c.gru_t + g * gru_t, zeros,
              dv + g * s.block, D);
    for (int i = 0; i < n; i++) norm_silu_backward(s.D, k.v + i * D, c.gain, dv + i * D, dgain);
    for (int g = 0; g < s.G; g++)
      product(n, s.block, s.block, dv + g * s.block, D, c.own_t + g * own_t, nullptr,
              dold + g * s.block, s.D);
    product(n, 2 * s.H, s.D, dv, D, c.common_t, zeros, dx, 2 * s.H);
    for (int i = 0; i < n; i++) {
      std::memcpy(du0 + i * H, dx + i * 2 * s.H, s.H * 4);
      std::memcpy(du1 + i * H, dx + i * 2 * s.H + s.H, s.H * 4);
      norm_silu_backward(s.H, k.u0 + i * H, c.g0, du0 + i * H, dg0);
      norm_silu_backward(s.H, k.u1 + i * H, c.g1, du1 + i * H, dg1);
    }
    product(n, s.D, s.H, du0, H, c.w0_t, nullptr, dold, s.D);
    product(n, s.SK, s.H, du1, H, c.w1_t, zeros, dz, s.SK);
    for (long i = 0; i < rows; i++) {
      const float live = o.keep[at + i * T];
      for (int j = 0; j < s.D; j++) dh[i * s.D + j] = live * dold[i * s.D + j];
      for (int j = 0; j < s.SK; j++) dz[i * s.SK + j] *= live;
    }
  }
}

}  // namespace

// Back through the steps, in the same pieces.
extern "C" void observe_backward(const Core *core, const Observed *observed, const Kept *kept,
                                 const Gradients *gradients, long rows, long pieces, int threads) {
  share(pieces, threads, [&](long i) {
    const long first = rows * i / pieces;
    unobserve_rows(*core, *observed, *kept, *gradients, i, first, rows * (i + 1) / pieces - first);
  });
}

// The parts of an action in a row, each with a distribution of its own: `sizes` logits of a
// categorical, or as many means and then deviations of a bounded normal.
struct Actor {
  const Layer *layers;  // [.., F] -> parameters of all parts
  int count, parts;
  const int *sizes, *discrete;
  float least, most;  // deviation
};

// What goes into imagination: prior [.., D] -> logits, and action [.., A] -> what q reads of it.
struct Imagined {
  const Layer *prior, *action;
  int prior_count, action_count;
  long horizon;
  // [R, H, C] with a column for each class or dimension: uniform or normal, or the actions.
  const float *action_noise;
  const double *chosen_actions;
  const float *noise;             // [R, H, S] uniform, or the classes
  const int64_t *chosen;
  float *feat, *actions;          // [R, H + 1, D + S K], of which step 0 is given; [R, H, C]
};

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

// Sample the action of one row and embed it: classes one-hot, numbers scaled into [-1, 1].
void act(const Actor &a, const float *params, const float *noise, const double *chosen,
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
        const float deviation = (a.most - a.least) * sigmoid(params[size + k] + 2.0f) + a.least;
        const float x = chosen ? static_cast<float>(chosen[k])
                               : tangent(params[k]) + deviation * noise[k];
        action[k] = x;
        embedded[k] = x / (std::fabs(x) > 1.0f ? std::fabs(x) : 1.0f);
      }
    }
    const int columns = a.discrete[i] ? 1 : size;
    params += a.discrete[i] ? size : 2 * size;
    embedded += size;
    action += columns;
    noise = move(noise, columns);
    chosen = move(chosen, columns);
  }
}

void imagine_rows(const Core &c, const Actor &a, const Imagined &im, long first, int n) {
  const Shape s = shape(c);
  const int F = s.D + s.SK, C = width(a, false), A = width(a, true);
  const int P = a.layers[a.count - 1].outputs;
  const long H = im.horizon, ld = spread(F);
  thread_local std::vector<float> memory, own;
  memory.resize(n * (2 * ld + P + A + s.D + s.SK) + s.SK);
  float *state = memory.data(), *next = state + n * ld, *params = next + n * ld;
  float *embedded = params + n * P, *part = embedded + n * A;
  float *logits = part + n * s.D, *probs = logits + n * s.SK;
  const auto feat = [&](int i, long t) { return im.feat + ((first + i) * (H + 1) + t) * F; };
  for (int i = 0; i < n; i++) std::memcpy(state + i * ld, feat(i, 0), F * 4);
  for (long t = 0; t < H; t++) {
    forward_tile(a.layers, a.count, 0, n, state, ld, params, P);
    for (int i = 0; i < n; i++) {
      const long at = ((first + i) * H + t) * C;
      act(a, params + i * P, move(im.action_noise, at), move(im.chosen_actions, at),
          im.actions + at, embedded + i * A);
    }
    forward_tile(im.action, im.action_count, 0, n, embedded, A, part, s.D);
    sequence(c, n, state, ld, state + s.D, ld, part, s.D, scratch(s, n, own), 1, next, ld);
    forward_tile(im.prior, im.prior_count, 0, n, next, ld, logits, s.SK);
    for (int i = 0; i < n; i++) {
      const long at = ((first + i) * H + t) * c.variables;
      sample(c, logits + i * s.SK, move(im.noise, at), move(im.chosen, at), probs,
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
extern "C" void imagine_forward(const Core *core, const Actor *actor, const Imagined *imagined,
                                long rows, int threads) {
  share((rows + TILE_ROWS - 1) / TILE_ROWS, threads, [&](long i) {
    imagine_rows(*core, *actor, *imagined, i * TILE_ROWS, tile_from(i * TILE_ROWS, rows));
  });
}
