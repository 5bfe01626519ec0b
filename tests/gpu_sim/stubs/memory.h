// Memory of cards and of the host: reserved address space, and copies that take time.
#pragma once
#include "runtime.h"

static std::map<uintptr_t, std::pair<size_t, int>> dmem;
static std::map<uintptr_t, size_t> hmem;
static std::map<int, size_t> used;
static std::map<int, size_t> peak;
// What other processes hold: FAKE_TAKEN names a file with a number of 10^9 bytes, or none.
static size_t taken() {
  static const char* path = getenv("FAKE_TAKEN");
  FILE* f = path ? fopen(path, "r") : nullptr;
  if (!f) return 0;
  double gb = 0;
  if (fscanf(f, "%lf", &gb) != 1) gb = 0;
  fclose(f);
  return (size_t)(gb * 1e9);
}
// FAKE_FULL=capture: no memory is left while a stream records.
static bool full() {
  static const char* when = getenv("FAKE_FULL");
  return when && !strcmp(when, "capture") && !caps.empty();
}
static bool fits(size_t n) {
  return !full() && used[cur] + n + context() + taken() <= vram();
}
X size_t fake_used(int d) {
  L;
  return used[d];
}
X size_t fake_peak(int d) {
  L;
  return peak[d];
}
X E cudaMalloc(void** p, size_t n) {
  if (unsafe_here("cudaMalloc")) return err((E)900, "cudaMalloc");
  L;
  size_t r = (n + 0x1fffff) & ~(size_t)0x1fffff;
  open_context(cur, "cudaMalloc");
  *p = nullptr;
  if (!n) return cudaSuccess;
  if (!fits(r)) return err(cudaErrorMemoryAllocation, "cudaMalloc");
  void* q =
      mmap(nullptr, r, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (q == MAP_FAILED) return err(cudaErrorMemoryAllocation, "mmap");
  dmem[(uintptr_t)q] = {r, cur};
  used[cur] += r;
  if (used[cur] > peak[cur]) peak[cur] = used[cur];
  *p = q;
  say("cudaMalloc dev %d %zu MB (used %zu MB)", cur, r >> 20, used[cur] >> 20);
  return cudaSuccess;
}
X E cudaFree(void* p) {
  if (!p) return cudaSuccess;
  if (unsafe_here("cudaFree")) return err((E)900, "cudaFree");
  L;
  auto i = dmem.find((uintptr_t)p);
  if (i == dmem.end()) return err(cudaErrorInvalidValue, "cudaFree");
  used[i->second.second] -= i->second.first;
  munmap(p, i->second.first);
  say("cudaFree %zu MB", i->second.first >> 20);
  dmem.erase(i);
  return cudaSuccess;
}
X E cudaMemGetInfo(size_t* f, size_t* t) {
  L;
  open_context(cur, "cudaMemGetInfo");
  *t = vram();
  size_t held = used[cur] + context() + taken();
  *f = held < vram() ? vram() - held : 0;
  say("cudaMemGetInfo on device %d", cur);
  return cudaSuccess;
}
X E cudaHostAlloc(void** p, size_t n, unsigned) {
  if (unsafe_here("cudaHostAlloc")) return err((E)900, "cudaHostAlloc");
  L;
  open_context(cur, "cudaHostAlloc");
  void* q = mmap(nullptr, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  hmem[(uintptr_t)q] = n;
  *p = q;
  say("cudaHostAlloc %zu KB dev %d", n >> 10, cur);
  return cudaSuccess;
}
X E cudaFreeHost(void* p) {
  L;
  auto i = hmem.find((uintptr_t)p);
  if (i != hmem.end()) {
    munmap(p, i->second);
    hmem.erase(i);
  }
  return cudaSuccess;
}
X E cudaHostRegister(void* p, size_t n, unsigned) {
  L;
  hmem[(uintptr_t)p] = n;
  return cudaSuccess;
}
X E cudaHostUnregister(void* p) {
  L;
  hmem.erase((uintptr_t)p);
  return cudaSuccess;
}
static int where(const void* p, int* dev) {
  L;
  auto i = dmem.upper_bound((uintptr_t)p);
  if (i != dmem.begin()) {
    --i;
    if ((uintptr_t)p < i->first + i->second.first) {
      if (dev) *dev = i->second.second;
      return 2;
    }
  }
  auto j = hmem.upper_bound((uintptr_t)p);
  if (j != hmem.begin()) {
    --j;
    if ((uintptr_t)p < j->first + j->second) return 1;
  }
  return 0;
}
X E cudaPointerGetAttributes(cudaPointerAttributes* a, const void* p) {
  memset(a, 0, sizeof *a);
  int d = cur;
  int w = where(p, &d);
  a->type = w == 2   ? cudaMemoryTypeDevice
            : w == 1 ? cudaMemoryTypeHost
                     : cudaMemoryTypeUnregistered;
  a->device = d;
  a->devicePointer = w == 2 ? (void*)p : nullptr;
  a->hostPointer = w == 2 ? nullptr : (void*)p;
  return cudaSuccess;
}
static E copy(void* d, const void* s, size_t n, Str* st, const char* what, bool sync) {
  int wd = where(d, 0), ws = where(s, 0);
  if (st->cap) {
    if (wd == 0 || ws == 0) {
      st->cap->bad = true;
      say("PAGEABLE copy of %zu bytes in a capture", n);
      return err((E)900, what);
    }
    fake_launch((cudaStream_t)st, wd == 2 && ws == 2 ? "memcpy DtoD"
                                  : wd == 2          ? "memcpy HtoD"
                                                     : "memcpy DtoH");
    return cudaSuccess;
  }
  const char* k = wd == 2 && ws == 2 ? "memcpy DtoD"
                  : wd == 2          ? (ws == 1 ? "memcpy HtoD pinned" : "memcpy HtoD pageable")
                                     : (wd == 1 ? "memcpy DtoH pinned" : "memcpy DtoH pageable");
  fake_launch((cudaStream_t)st, k);
  if (ws == 2 && wd != 2) {
    static int z = (int)envd("FAKE_ZERO", 1);
    if (!z)
      memcpy(d, s, n);
    else if (n == 1)
      *(char*)d = 1;
    else
      memset(d, 0, n);
  } else if (wd == 2 && ws != 2)
    memcpy(d, s, n);
  if (sync || wd == 0 || ws == 0) {
    sleep_until(st->ready);
  }
  return cudaSuccess;
}
X E cudaMemcpyAsync(void* d, const void* s, size_t n, enum cudaMemcpyKind, cudaStream_t st) {
  return copy(d, s, n, S(st), "cudaMemcpyAsync", false);
}
X E cudaMemcpy(void* d, const void* s, size_t n, enum cudaMemcpyKind) {
  if (unsafe_here("cudaMemcpy")) return err((E)906, "cudaMemcpy");
  return copy(d, s, n, deflt(), "cudaMemcpy", true);
}
X E cudaMemcpyPeerAsync(void* d, int dd, const void* s, int sd, size_t n, cudaStream_t st) {
  say("PEER copy dev %d -> %d", sd, dd);
  return copy(d, s, n, S(st), "peer", false);
}
X E cudaMemcpy2DAsync(void* d, size_t dp, const void* s, size_t sp, size_t w, size_t h,
                      enum cudaMemcpyKind, cudaStream_t st) {
  fake_launch(st, "memcpy2D");
  return cudaSuccess;
}
X E cudaMemsetAsync(void* p, int v, size_t n, cudaStream_t st) {
  fake_launch(st, "memset");
  if (!S(st)->cap && n <= 4096) memset(p, v, n);
  return cudaSuccess;
}
X E cudaMemset(void* p, int v, size_t n) {
  fake_launch(nullptr, "memset");
  return cudaSuccess;
}
X E cudaMemcpyToSymbol(const void*, const void*, size_t, size_t, enum cudaMemcpyKind) {
  return cudaSuccess;
}

// for cuMemCreate, which is how expandable segments take memory; returns the device, -1 if there is no room
X int fake_take(size_t n) {
  L;
  open_context(cur, "cuMemCreate");
  if (!fits(n)) {
    say("ERROR 2 in cuMemCreate");
    return -1;
  }
  used[cur] += n;
  if (used[cur] > peak[cur]) peak[cur] = used[cur];
  return cur;
}
X void fake_give(size_t n, int d) {
  L;
  used[d] -= n;
}
X void fake_range(void* p, size_t n, int on) {
  L;
  if (on)
    dmem[(uintptr_t)p] = {n, cur};
  else
    dmem.erase((uintptr_t)p);
}
