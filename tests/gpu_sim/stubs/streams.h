// Streams and events. Each stream has a clock: the time at which all its work is done.
#pragma once
#include "runtime.h"

X E cudaStreamCreateWithPriority(cudaStream_t* s, unsigned, int p) {
  L;
  open_context(cur, "cudaStreamCreate");
  Str* n = new Str{cur, p, nstr++};
  all.push_back(n);
  *s = (cudaStream_t)n;
  return cudaSuccess;
}
X E cudaStreamCreateWithFlags(cudaStream_t* s, unsigned f) {
  return cudaStreamCreateWithPriority(s, f, 0);
}
X E cudaStreamCreate(cudaStream_t* s) { return cudaStreamCreateWithPriority(s, 0, 0); }
X E cudaStreamDestroy(cudaStream_t s) { return cudaSuccess; }
X E cudaStreamGetPriority(cudaStream_t s, int* p) {
  *p = S(s)->prio;
  return cudaSuccess;
}
X E cudaStreamQuery(cudaStream_t s) {
  L;
  Str* t = S(s);
  if (t->cap) {
    t->cap->bad = true;
    return err((E)900, "cudaStreamQuery");
  }
  if (unsafe_here("cudaStreamQuery")) return err((E)900, "cudaStreamQuery");
  return now() >= t->ready ? cudaSuccess : err(cudaErrorNotReady, "q");
}
X E cudaStreamSynchronize(cudaStream_t s) {
  int64_t t;
  {
    L;
    Str* q = S(s);
    if (q->cap) {
      q->cap->bad = true;
      q->cap->why = "sync";
      say("SYNC of a capturing stream");
      return err((E)900, "cudaStreamSynchronize");
    }
    t = q->ready;
  }
  if (unsafe_here("cudaStreamSynchronize")) return err((E)900, "cudaStreamSynchronize");
  fake_launch(s, "(stream sync)");
  {
    L;
    S(s)->ready -= (int64_t)(KUS() * 1000);
  }
  sleep_until(t);
  return cudaSuccess;
}
X E cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
  L;
  Str* t = S(s);
  Ev* v = (Ev*)e;
  if (!v->rec) return cudaSuccess;
  if (v->cap) {
    if (t->cap && t->cap != v->cap) return err((E)903, "wait");
    if (!t->cap) {
      t->cap = v->cap;
      t->depth = 0;
      v->cap->joined.insert(t);
      say("stream %d joins the capture", t->id);
    }
    if (t == v->cap->origin) v->cap->joined.erase(v->s);
    if (v->depth > t->depth) t->depth = v->depth;
    return cudaSuccess;
  }
  if (t->cap) {
    t->cap->bad = true;
    say("capturing stream waits for an event outside");
    return err((E)905, "cudaStreamWaitEvent");
  }
  if (v->t > t->ready) t->ready = v->t;
  return cudaSuccess;
}

// Events.
static E evnew(cudaEvent_t* e) {
  *e = (cudaEvent_t) new Ev();
  return cudaSuccess;
}
X E cudaEventCreate(cudaEvent_t* e) { return evnew(e); }
X E cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) { return evnew(e); }
X E cudaEventDestroy(cudaEvent_t e) { return cudaSuccess; }
X E cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
  L;
  Ev* v = (Ev*)e;
  Str* t = S(s);
  v->rec = true;
  v->s = t;
  if (t->cap) {
    v->cap = t->cap;
    v->depth = t->depth;
    return cudaSuccess;
  }
  v->cap = nullptr;
  int64_t n = now();
  v->t = t->ready > n ? t->ready : n;
  return cudaSuccess;
}
X E cudaEventRecordWithFlags(cudaEvent_t e, cudaStream_t s, unsigned) {
  return cudaEventRecord(e, s);
}
X E cudaEventQuery(cudaEvent_t e) {
  Ev* v = (Ev*)e;
  if (v->cap) {
    L;
    v->cap->bad = true;
    return err((E)900, "cudaEventQuery of captured");
  }
  if (unsafe_here("cudaEventQuery")) return err((E)900, "cudaEventQuery");
  return now() >= v->t ? cudaSuccess : err(cudaErrorNotReady, "q");
}
X E cudaEventSynchronize(cudaEvent_t e) {
  Ev* v = (Ev*)e;
  if (v->cap) {
    v->cap->bad = true;
    return err((E)900, "cudaEventSynchronize of captured");
  }
  if (unsafe_here("cudaEventSynchronize")) return err((E)900, "cudaEventSynchronize");
  sleep_until(v->t);
  return cudaSuccess;
}
X E cudaEventElapsedTime(float* ms, cudaEvent_t a, cudaEvent_t b) {
  *ms = (((Ev*)b)->t - ((Ev*)a)->t) / 1e6;
  if (*ms <= 0) *ms = 0.001f;
  return cudaSuccess;
}
