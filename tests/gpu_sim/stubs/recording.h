// Recordings (stream capture) and their replays, and kernels that are launched one by one.
#pragma once
#include "runtime.h"

static unsigned long long ncap = 1;
static const long kLong = 1000;
X E cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode m) {
  L;
  Str* t = S(s);
  if (t->cap) return err((E)900, "begin");
  Cap* c = new Cap{new Graph(), t, (int)m, tid(), ncap++};
  t->cap = c;
  t->depth = 0;
  caps.push_back(c);
  say("BEGIN capture mode %d stream %d dev %d", (int)m, t->id, t->dev);
  return cudaSuccess;
}
X E cudaStreamEndCapture(cudaStream_t s, cudaGraph_t* g) {
  L;
  Str* t = S(s);
  *g = nullptr;
  if (!t->cap) return err((E)901, "end of nothing");
  Cap* c = t->cap;
  for (size_t i = 0; i < caps.size(); i++)
    if (caps[i] == c) {
      caps.erase(caps.begin() + i);
      break;
    }
  t->cap = nullptr;
  for (auto q : c->joined)
    if (q->cap == c) q->cap = nullptr;
  say("END capture: %zu nodes, depth %ld, bad %d %s unjoined %zu", c->g->nodes.size(), c->g->depth,
      (int)c->bad, c->why.c_str(), c->joined.size());
  if (getenv("FAKE_NODES")) {
    FILE* f = fopen(getenv("FAKE_NODES"), "w");
    for (auto& p : c->g->by) fprintf(f, "%ld\t%s\n", p.second, p.first.c_str());
    fclose(f);
    f = fopen((std::string(getenv("FAKE_NODES")) + ".seq").c_str(), "w");
    for (auto& p : c->g->nodes) fprintf(f, "%s\n", p.c_str());
    fclose(f);
  }
  if (c->bad) return err((E)901, "cudaStreamEndCapture");
  if (c->joined.size()) return err((E)904, "unjoined");
  *g = (cudaGraph_t)c->g;
  return cudaSuccess;
}
X E cudaStreamIsCapturing(cudaStream_t s, enum cudaStreamCaptureStatus* o) {
  L;
  Str* t = S(s);
  *o = t->cap ? (t->cap->bad ? cudaStreamCaptureStatusInvalidated : cudaStreamCaptureStatusActive)
              : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
X E cudaStreamGetCaptureInfo(cudaStream_t s, enum cudaStreamCaptureStatus* o,
                             unsigned long long* id, cudaGraph_t* g, const cudaGraphNode_t** d,
                             const cudaGraphEdgeData** e, size_t* n) {
  L;
  Str* t = S(s);
  *o = t->cap ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  if (id) *id = t->cap ? t->cap->id : 0;
  if (g) *g = t->cap ? (cudaGraph_t)t->cap->g : nullptr;
  if (d) *d = nullptr;
  if (e) *e = nullptr;
  if (n) *n = 0;
  return cudaSuccess;
}
X E cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode* m) {
  int o = tmode;
  tmode = (int)*m;
  *m = (enum cudaStreamCaptureMode)o;
  return cudaSuccess;
}
X E cudaGraphInstantiateWithFlags(cudaGraphExec_t* x, cudaGraph_t g, unsigned long long) {
  Exec* e = new Exec();
  e->g = *(Graph*)g;
  *x = (cudaGraphExec_t)e;
  return cudaSuccess;
}
X E cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t s) {
  L;
  Exec* e = (Exec*)x;
  Str* t = S(s);
  counts["GRAPH LAUNCH"]++;
  if (t->cap) {
    fake_launch(s, "child graph");
    return cudaSuccess;
  }
  int64_t n = now();
  if (t->ready < n) t->ready = n;
  // Only of an update, which is long: what else is recorded takes the time of its nodes.
  double u = e->g.depth >= kLong ? envd("FAKE_UPDATE_US", 0) : 0;
  open_context(t->dev, "cudaGraphLaunch");
  t->ready += (int64_t)((u > 0 ? u : e->g.depth * NUS()) * 1000);
  return cudaSuccess;
}
X E cudaGraphGetNodes(cudaGraph_t g, cudaGraphNode_t* n, size_t* c) {
  *c = ((Graph*)g)->nodes.size();
  return cudaSuccess;
}
X E cudaGraphDestroy(cudaGraph_t) { return cudaSuccess; }
X E cudaGraphExecDestroy(cudaGraphExec_t) { return cudaSuccess; }

// Kernels.
X void** __cudaRegisterFatBinary(void*) { return (void**)new void*(); }
X void __cudaRegisterFatBinaryEnd(void**) {}
X void __cudaUnregisterFatBinary(void**) {}
X void __cudaRegisterFunction(void**, const char* h, char*, const char* name, int, void*, void*,
                              void*, void*, int*) {
  L;
  fn[h] = name;
}
X void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
X char __cudaInitModule(void**) { return 1; }
struct Cfg {
  dim3 g, b;
  size_t sh;
  void* s;
};
static thread_local std::vector<Cfg> cfgs;
X unsigned __cudaPushCallConfiguration(dim3 g, dim3 b, size_t sh, void* s) {
  cfgs.push_back({g, b, sh, s});
  return 0;
}
X E __cudaPopCallConfiguration(dim3* g, dim3* b, size_t* sh, void* s) {
  Cfg c = cfgs.back();
  cfgs.pop_back();
  *g = c.g;
  *b = c.b;
  *sh = c.sh;
  *(void**)s = c.s;
  return cudaSuccess;
}
static const char* nameof(const void* f) {
  L;
  auto i = fn.find(f);
  return i == fn.end() ? "?" : i->second.c_str();
}
X E cudaLaunchKernel(const void* f, dim3, dim3, void**, size_t, cudaStream_t s) {
  fake_launch(s, nameof(f));
  return cudaSuccess;
}
X E __cudaLaunchKernel(void* k, dim3, dim3, void**, size_t, cudaStream_t s) {
  fake_launch(s, nameof(k));
  return cudaSuccess;
}
X E __cudaGetKernel(void** k, const void* f) {
  *k = (void*)f;
  return cudaSuccess;
}
X E cudaLaunchCooperativeKernel(const void* f, dim3, dim3, void**, size_t, cudaStream_t s) {
  fake_launch(s, nameof(f));
  return cudaSuccess;
}
X E cudaLaunchKernelExC(const cudaLaunchConfig_t* c, const void* f, void**) {
  fake_launch(c->stream, nameof(f));
  return cudaSuccess;
}
X E cudaFuncGetAttributes(cudaFuncAttributes* a, const void*) {
  memset(a, 0, sizeof *a);
  a->maxThreadsPerBlock = 1024;
  a->numRegs = 32;
  a->binaryVersion = 90;
  a->ptxVersion = 90;
  return cudaSuccess;
}
X E cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* n, const void*, int, size_t) {
  *n = 2;
  return cudaSuccess;
}
X E cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* n, const void*, int, size_t,
                                                           unsigned) {
  *n = 2;
  return cudaSuccess;
}
X E cudaGetDriverEntryPointByVersion(const char* sym, void** p, unsigned, unsigned long long,
                                     enum cudaDriverEntryPointQueryResult* st) {
  extern void* fake_driver(const char*);
  *p = fake_driver(sym);
  if (st) *st = *p ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}
#include <dlfcn.h>
void* fake_driver(const char* n) {
  static void* h = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
  return h ? dlsym(h, n) : nullptr;
}
X E cudaGetSymbolAddress(void** p, const void* s) {
  *p = (void*)s;
  return cudaSuccess;
}
