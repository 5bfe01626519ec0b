// The driver, as far as Triton and expandable segments use it.
#include "stub.h"
#include <dlfcn.h>
#include <sys/mman.h>

static std::map<void*, std::string> names;
extern "C" {
int cudaSetDevice(int);
int cudaGetDevice(int*);
int cudaGetDeviceCount(int*);
int cudaDeviceGetAttribute(int*, int, int);
int cudaMalloc(void**, size_t);
int fake_has_context(int);
}
X int cuInit(unsigned) { return 0; }
X int cuDriverGetVersion(int* v) {
  *v = 13000;
  return 0;
}
X int cuDeviceGetCount(int* n) { return cudaGetDeviceCount(n); }
X int cuDeviceGet(int* d, int i) {
  *d = i;
  return 0;
}
X int cuDeviceGetAttribute(int* v, int a, int d) { return cudaDeviceGetAttribute(v, a, d); }
X int cuDeviceGetName(char* n, int l, int) {
  strncpy(n, "Fake", l);
  return 0;
}
X int cuDevicePrimaryCtxGetState(int d, unsigned* f, int* a) {
  *f = 0;
  *a = fake_has_context(d);
  return 0;
}
X int cuDevicePrimaryCtxRetain(void** c, int d) {
  *c = (void*)(intptr_t)(0x1000 + d);
  return 0;
}
X int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
static thread_local void* ctx = (void*)0x1000;
X int cuCtxGetCurrent(void** c) {
  *c = ctx;
  return 0;
}
X int cuCtxSetCurrent(void* c) {
  ctx = c;
  return 0;
}
X int cuCtxGetDevice(int* d) {
  cudaGetDevice(d);
  return 0;
}
X int cuCtxSynchronize() { return 0; }
X int cuModuleLoad(void** m, const char*) {
  *m = calloc(1, 64);
  return 0;
}
X int cuModuleLoadData(void** m, const void*) {
  *m = calloc(1, 64);
  return 0;
}
X int cuModuleLoadDataEx(void** m, const void*, unsigned, void*, void*) {
  *m = calloc(1, 64);
  return 0;
}
X int cuModuleUnload(void*) { return 0; }
X int cuModuleGetFunction(void** f, void* m, const char* n) {
  *f = calloc(1, 64);
  names[*f] = std::string("triton ") + n;
  return 0;
}
X int cuFuncGetAttribute(int* v, int a, void*) {
  *v = 0;
  if (a == 0) *v = 1024;
  if (a == 4) *v = 32;
  return 0;
}
X int cuFuncSetAttribute(void*, int, int) { return 0; }
X int cuFuncSetCacheConfig(void*, int) { return 0; }
X int cuGetErrorString(int e, const char** s) {
  *s = "fake";
  return 0;
}
X int cuGetErrorName(int e, const char** s) {
  *s = "fake";
  return 0;
}
static int launch(void* f, void* s) {
  auto i = names.find(f);
  fake_launch(s, i == names.end() ? "triton ?" : i->second.c_str());
  return 0;
}
X int cuLaunchKernel(void* f, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                     void* s, void**, void**) {
  return launch(f, s);
}
X int cuLaunchCooperativeKernel(void* f, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                                unsigned, void* s, void**) {
  return launch(f, s);
}
struct LC {
  unsigned gx, gy, gz, bx, by, bz, sh;
  void* s;
};
X int cuLaunchKernelEx(LC* c, void* f, void**, void**) { return launch(f, c->s); }
extern "C" int fake_take(size_t);
extern "C" void fake_give(size_t, int);
extern "C" void fake_range(void*, size_t, int);
X int cuMemAddressReserve(uintptr_t* p, size_t n, size_t, uintptr_t, unsigned long long) {
  void* q =
      mmap(nullptr, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (q == MAP_FAILED) return 2;
  *p = (uintptr_t)q;
  fake_range(q, n, 1);
  return 0;
}
X int cuMemAddressFree(uintptr_t p, size_t n) {
  fake_range((void*)p, n, 0);
  munmap((void*)p, n);
  return 0;
}
struct Piece {
  size_t n;
  int dev;
};
X int cuMemCreate(Piece** h, size_t n, void*, unsigned long long) {
  int d = fake_take(n);
  if (d < 0) return 2;
  *h = new Piece{n, d};
  return 0;
}
X int cuMemRelease(Piece* h) {
  fake_give(h->n, h->dev);
  delete h;
  return 0;
}
X int cuMemMap(uintptr_t, size_t, size_t, size_t, unsigned long long) { return 0; }
X int cuMemUnmap(uintptr_t, size_t) { return 0; }
X int cuMemSetAccess(uintptr_t, size_t, void*, size_t) { return 0; }
X int cuMemGetAllocationGranularity(size_t* g, void*, int) {
  *g = 2 << 20;
  return 0;
}
X int cuMemRetainAllocationHandle(size_t* h, void*) { return 1; }
X int cuMemExportToShareableHandle() { return 0; }
X int cuMemImportFromShareableHandle() { return 0; }
X int cuMemsetD32Async() { return 0; }
X int cuStreamWriteValue32_v2() { return 0; }
X int cuStreamWriteValue32() { return 0; }
X int cuStreamWaitValue32_v2() { return 0; }
X int cuDeviceGetUuid() { return 0; }
X int cuMulticastAddDevice() { return 0; }
X int cuMulticastBindMem() { return 0; }
X int cuMulticastCreate() { return 0; }
X int cuMulticastUnbind() { return 0; }
X int cuMemGetAllocationPropertiesFromHandle() { return 0; }
X int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* n, void*, int, size_t) {
  *n = 2;
  return 0;
}
X int cuOccupancyMaxActiveClusters(int* n, void*, void*) {
  *n = 2;
  return 0;
}
X int cuPointerGetAttribute(void* v, int a, uintptr_t p) {
  *(uintptr_t*)v = p;
  return 0;
}
X int cuTensorMapEncodeTiled() { return 0; }
X int cuGetProcAddress_v2(const char* n, void** p, int, uint64_t, int* st) {
  *p = dlsym(RTLD_DEFAULT, n);
  if (st) *st = 0;
  return *p ? 0 : 500;
}
#include "cuda_rest.inc"
