// What all parts of the runtime share: settings, streams, events, recordings, the log.
#pragma once
#include <cstdio>
#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <cstdint>
#include <string>
#include <map>
#include <unordered_map>
#include <vector>
#include <mutex>
#include <set>
#include <atomic>
#include <time.h>
#include <unistd.h>
#include <sys/mman.h>
#include <pthread.h>
#include <sys/syscall.h>
#include "driver_types.h"
typedef cudaError_t E;
#define X extern "C" __attribute__((visibility("default")))
static std::recursive_mutex M;
#define L std::lock_guard<std::recursive_mutex> lock(M)
static double envd(const char* n, double d) {
  const char* s = getenv(n);
  return s ? atof(s) : d;
}
static int64_t now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}
static int ngpu() {
  static int n = (int)envd("FAKE_GPUS", 1);
  return n;
}
static size_t vram() {
  static size_t n = (size_t)(envd("FAKE_VRAM_GB", 80) * 1e9);
  return n;
}
static size_t context() {
  static size_t n = (size_t)(envd("FAKE_CTX_GB", 0.5) * 1e9);
  return n;
}  // what a process holds on the card besides tensors
static double KUS() {
  static double v = envd("FAKE_KERNEL_US", 3);
  return v;
}  // eager kernel on the GPU
static double NUS() {
  static double v = envd("FAKE_NODE_US", 2.2);
  return v;
}  // node in a graph
static thread_local int cur = 0;
static thread_local int tmode = 0;  // cudaStreamCaptureModeGlobal
static thread_local E last = cudaSuccess;
static int tid() { return (int)syscall(SYS_gettid); }
static void threadname(char* b) { pthread_getname_np(pthread_self(), b, 16); }
struct Graph {
  std::vector<std::string> nodes;
  std::map<std::string, long> by;
  long depth = 0;
};
struct Cap {
  Graph* g;
  struct Str* origin;
  int mode;
  int thread;
  unsigned long long id;
  bool bad = false;
  std::set<struct Str*> joined;
  std::string why;
};
struct Str {
  int dev;
  int prio;
  int id;
  int64_t ready = 0;
  Cap* cap = nullptr;
  long depth = 0;
  long launches = 0;
};
struct Ev {
  int64_t t = 0;
  Cap* cap = nullptr;
  long depth = 0;
  bool rec = false;
  Str* s = nullptr;
};
struct Exec {
  Graph g;
};
static std::map<void*, Str*> defaults;
static int nstr = 0;
static std::vector<Str*> all;
static Str* deflt() {
  L;
  auto& d = defaults[(void*)(intptr_t)(cur + 1)];
  if (!d) {
    d = new Str{cur, 0, nstr++};
  }
  return d;
}
static Str* S(cudaStream_t s) {
  return (s == nullptr || s == (cudaStream_t)1 || s == (cudaStream_t)2) ? deflt() : (Str*)s;
}
static std::unordered_map<const void*, std::string> fn;
static std::map<std::string, long> counts;
static FILE* logf() {
  static FILE* f = getenv("FAKE_LOG") ? fopen(getenv("FAKE_LOG"), "a") : nullptr;
  return f;
}
static void say(const char* fmt, ...) {
  if (!logf()) return;
  L;
  char tn[16];
  threadname(tn);
  fprintf(logf(), "[%s] ", tn);
  va_list a;
  va_start(a, fmt);
  vfprintf(logf(), fmt, a);
  va_end(a);
  fputc('\n', logf());
  fflush(logf());
}
static E err(E e, const char* what) {
  last = e;
  if (e != cudaErrorNotReady) say("ERROR %d in %s", (int)e, what);
  return e;
}
// Contexts: the first call that needs one opens it, as on a real card, where it takes memory.
static std::set<int> contexts;
static void open_context(int d, const char* what) {
  L;
  if (contexts.insert(d).second) say("CONTEXT on device %d opened by %s", d, what);
}
X int fake_has_context(int d) {
  L;
  return contexts.count(d);
}
static std::vector<Cap*> caps;
static bool unsafe_here(const char* what) {  // potentially unsafe call
  L;
  for (auto c : caps) {
    if (tmode == 2) return false;
    bool mine = c->thread == tid();
    if ((c->mode == 0 && tmode == 0) || (c->mode == 1 && mine) || (c->mode == 0 && mine)) {
      c->bad = true;
      c->why = what;
      say("UNSAFE during capture: %s", what);
      return true;
    }
  }
  return false;
}
X void fake_launch(cudaStream_t st, const char* name) {
  L;
  Str* s = S(st);
  open_context(s->dev, name);
  counts[name]++;
  if (s->cap) {
    s->cap->g->nodes.push_back(name);
    s->cap->g->by[name]++;
    s->depth++;
    if (s->depth > s->cap->g->depth) s->cap->g->depth = s->depth;
    return;
  }
  int64_t n = now();
  if (s->ready < n) s->ready = n;
  s->ready += (int64_t)(KUS() * 1000);
  s->launches++;
}
// Counts of launches by name; probes call these through ctypes.
X void fake_reset() {
  L;
  counts.clear();
}
X void fake_dump(const char* path) {
  L;
  FILE* f = fopen(path, "w");
  for (auto& p : counts) fprintf(f, "%ld\t%s\n", p.second, p.first.c_str());
  fclose(f);
}
static void sleep_until(int64_t t) {
  while (now() < t) {
    int64_t d = t - now();
    if (d > 0) {
      timespec q{(time_t)(d / 1000000000LL), (long)(d % 1000000000LL)};
      nanosleep(&q, nullptr);
    }
  }
}
