// The structures that Python fills in. `structs.py` has the same fields, see layout.cpp.
//
// Legend: N rows, D deter, Hd hidden, S stoch, K classes, F feat, E embed, G blocks, B batch,
// T time, R rows of H imagined steps, C columns of several actions.

#pragma once

#include <cstdint>

// One dense layer: linear, RMSNorm, SiLU; the last layer of a stack may be linear alone.
struct DenseLayer {
  int inputs, outputs;
  int bfloat16;             // whether packed kernels are, see bfloat16.h
  const float *kernel;      // packed [inputs, outputs]
  const float *transposed;  // packed [outputs, inputs], read by the backward pass
  const float *bias;        // [outputs]
  const float *gain;        // [outputs], or null: linear alone
  float *pre_norm;          // [all rows, outputs] in front of the norm, or null: not saved
  float *dkernel, *dbias, *dgain;  // gradients: [inputs, padded(outputs)], [outputs]
};

// One layer of an encoder or decoder: a convolution, then pooling (encoder) or a pixel shuffle
// (decoder), then RMSNorm and SiLU, which the last layer of the decoder lacks.
struct ConvLayer {
  int inputs;                // channels
  int outputs;               // channels after the pixel shuffle
  const float *kernel;       // transformed and packed, see winograd_gemm
  const float *transposed;   // of inputs and outputs; null: the inputs' gradient is not wanted
  const float *bias, *gain;  // [outputs]; the gain may be null
  float *pre_norm;           // [groups], maps in front of the norm, or null: not saved
  uint8_t *winner;           // a byte for each of its floats; encoder only
  // What each piece of the groups adds: [pieces, points, inputs, padded(outputs of the
  // convolution)], and [pieces, outputs].
  float *dkernel, *dbias, *dgain;
};

// The parameters of a step of the recurrent state-space model, see recurrent.h.
struct Core {
  int deter, hidden, variables, classes, blocks;
  int bfloat16;                                   // whether packed kernels are, see bfloat16.h
  float unimix;                                   // of the uniform distribution in z's
  const float *w0, *b0, *g0;                     // packed [D, Hd]
  const float *w1, *b1, *g1;                     // not packed [S K, Hd]
  const float *own, *common, *gain;              // G packed [D/G, D/G]; packed [2 Hd, D]; [D]
  const float *gru, *gru_bias;                   // G packed [D/G, 3 D/G]; [3 D], blocks first
  const float *wo, *go, *wl, *bl;                // packed [D, Hd]; packed [Hd, S K]
  // Packed transposes, read by the backward pass alone.
  const float *w0_t, *w1_t, *own_t, *common_t, *gru_t, *wo_t, *wl_t;
};

// What a step computes on the way: one row for each (row, step); rows are T steps apart.
struct Activations {
  float *u0, *u1;    // [Hd] in front of the norms of x0 and x1
  float *x;          // [2 Hd] x0 and x1
  float *v, *q;      // [D] in front of the norm of q, and q
  float *gru;        // [3 D]
  float *o, *p;      // [Hd] in front of the norm of o, and SiLU(norm(o))
  int saved;         // or 0: all is overwritten, gru holds one block, q is v
};

// What goes into filtering: deter0 [B, D], stoch0 [B, S K], all else [B, T, *]. keep is 0 where the
// state is cleared. Samples come from uniform noise, or are the chosen classes if there are any.
struct Filtering {
  long steps;
  const float *deter0, *stoch0, *action, *token, *keep, *noise;
  const int64_t *chosen;
  float *deter, *stoch, *logits;  // the results
};

// The gradients from outside, and what is left for those of the kernels: [B, T, *] each, and for
// the gains what each piece of rows adds, [pieces, *].
struct FilteringGradients {
  const float *deter, *stoch, *logits;
  float *u0, *u1, *v, *gru, *o, *l;
  float *g0, *g1, *gain, *go;
};

// The parts of an action in a row, each with a distribution of its own: `sizes` logits of a
// categorical, or as many means and then deviations of a bounded normal.
struct Actor {
  const DenseLayer *layers;  // [.., F] -> parameters of all parts
  int count, parts;
  const int *sizes, *discrete;  // [parts]
  float least, most;  // deviation
};

// What q reads of actions: a stack [.., A] -> [.., D], or all it can give if there is one class.
struct ActionPart {
  const DenseLayer *layers;
  int count, classes;
  const float *table;  // [classes + 1, D], at the end that of no action; or null
};

// What goes into a step of acting of N rows.
struct Acting {
  ActionPart action;
  const DenseLayer *token;          // [.., E] -> what o reads of it: linear
  const float *embed;               // [N, E]
  const float *deter, *stoch;       // [N, D], [N, S K] before the step
  const double *last_action;        // [N, C] before the step
  const uint8_t *reset;             // [N] whether all these are cleared first
  const float *noise;               // [N, S] uniform, or the classes
  const int64_t *chosen;
  const float *action_noise;        // [N, C] uniform or normal, or the actions
  const double *chosen_actions;
  float *new_deter, *new_stoch, *actions;  // results, [N, C]
};

// What reads all imagined states [R, H + 1, F].
struct Head {
  const DenseLayer *layers;
  int count;
  float *y;           // [R, H + 1, outputs], or null: not wanted
  const float *bins;  // [outputs] of which the mean is wanted, or null
  float *mean;        // [R, H + 1]
};

// What goes into imagination.
struct Imagination {
  ActionPart action;
  const DenseLayer *prior;  // [.., D] -> logits
  int prior_count;
  long horizon;
  // [R, H, C] with a column for each class or dimension: uniform or normal, or the actions.
  const float *action_noise;
  const double *chosen_actions;
  const float *noise;             // [R, H, S] uniform, or the classes
  const int64_t *chosen;
  float *feat, *actions;          // [R, H + 1, D + S K], of which step 0 is given; [R, H, C]
  const Head *heads;              // the first is the actor's
  int head_count;
};

// Categorical variables side by side, with a share of the uniform distribution mixed in.
struct Categorical {
  int variables, classes;
  float unimix;
};

// A parameter tensor of the optimiser with its state.
struct OptimTensor {
  long size;
  const float *gradient;
  float *parameter, *rms, *momentum;
  float update_squares, parameter_squares;  // results: sums over the tensor after the step
};

struct OptimSettings {
  float clip, floor;                  // of the gradient's norm, relative to the parameter's
  float beta_rms, beta_momentum;
  float correct_rms, correct_momentum;  // 1 - beta^n
  float eps, rate;
};
