// Cards and their properties, and what errors are called.
#pragma once
#include "runtime.h"

X E cudaGetDeviceCount(int* n) {
  *n = ngpu();
  return cudaSuccess;
}
X E cudaGetDevice(int* d) {
  *d = cur;
  return cudaSuccess;
}
X E cudaSetDevice(int d) {
  if (d < 0 || d >= ngpu()) return err(cudaErrorInvalidDevice, "cudaSetDevice");
  cur = d;
  open_context(d, "cudaSetDevice");
  return cudaSuccess;
}
X E cudaDriverGetVersion(int* v) {
  *v = 13000;
  return cudaSuccess;
}
X E cudaRuntimeGetVersion(int* v) {
  *v = 13000;
  return cudaSuccess;
}
X E cudaGetDeviceProperties(cudaDeviceProp* p, int d) {
  memset(p, 0, sizeof *p);
  int cc = (int)envd("FAKE_CC", 90);
  strcpy(p->name, cc == 90 ? "Fake H100" : "Fake GPU");
  p->totalGlobalMem = vram();
  p->sharedMemPerBlock = 49152;
  p->regsPerBlock = 65536;
  p->warpSize = 32;
  p->maxThreadsPerBlock = 1024;
  p->maxThreadsDim[0] = 1024;
  p->maxThreadsDim[1] = 1024;
  p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 2147483647;
  p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->major = cc / 10;
  p->minor = cc % 10;
  p->textureAlignment = 512;
  p->multiProcessorCount = cc == 90 ? 132 : 128;
  p->l2CacheSize = 50 << 20;
  p->maxThreadsPerMultiProcessor = cc == 90 ? 2048 : 1536;
  p->regsPerMultiprocessor = 65536;
  p->sharedMemPerMultiprocessor = cc == 90 ? 233472 : 102400;
  p->sharedMemPerBlockOptin = cc == 90 ? 232448 : 101376;
  p->maxBlocksPerMultiProcessor = 32;
  p->streamPrioritiesSupported = 1;
  p->unifiedAddressing = 1;
  p->memoryBusWidth = 5120;
  p->cooperativeLaunch = 1;
  p->memoryPoolsSupported = 1;
  p->managedMemory = 1;
  p->concurrentKernels = 1;
  p->reservedSharedMemPerBlock = 1024;
  p->canMapHostMemory = 1;
  p->pciBusID = d + 1;
  p->clusterLaunch = cc >= 90;
  return cudaSuccess;
}
X E cudaDeviceGetAttribute(int* v, enum cudaDeviceAttr a, int d) {
  *v = 0;
  cudaDeviceProp p;
  cudaGetDeviceProperties(&p, d);
  switch ((int)a) {
    case 5:
      *v = 2147483647;
      break;
    case 6:
    case 7:
      *v = 65535;
      break;
    case 2:
    case 3:
      *v = 1024;
      break;
    case 4:
      *v = 64;
      break;
    case 106:
      *v = 32;
      break;
    case 75:
      *v = p.major;
      break;
    case 76:
      *v = p.minor;
      break;
    case 16:
      *v = p.multiProcessorCount;
      break;
    case 10:
      *v = 32;
      break;
    case 1:
      *v = 1024;
      break;
    case 97:
      *v = p.sharedMemPerBlockOptin;
      break;
    case 8:
      *v = 49152;
      break;
    case 12:
    case 82:
      *v = 65536;
      break;
    case 39:
      *v = p.maxThreadsPerMultiProcessor;
      break;
    case 81:
      *v = p.sharedMemPerMultiprocessor;
      break;
    case 13:
      *v = 1980000;
      break;
    case 36:
      *v = 2600000;
      break;
    case 37:
      *v = 5120;
      break;
    case 115:
      *v = 1;
      break;
    case 95:
      *v = 1;
      break;
    default:
      *v = 0;
  }
  return cudaSuccess;
}
X E cudaDeviceGetStreamPriorityRange(int* l, int* g) {
  *l = 0;
  *g = -5;
  return cudaSuccess;
}
X E cudaDeviceGetPCIBusId(char* b, int n, int d) {
  snprintf(b, n, "0000:%02x:00.0", d + 1);
  return cudaSuccess;
}
X E cudaDeviceCanAccessPeer(int* c, int, int) {
  *c = 1;
  return cudaSuccess;
}
X E cudaDeviceSynchronize() {
  if (unsafe_here("cudaDeviceSynchronize")) return err((E)900, "cudaDeviceSynchronize");
  int64_t t = 0;
  open_context(cur, "cudaDeviceSynchronize");
  {
    L;
    for (auto s : all)
      if (s->dev == cur && !s->cap && s->ready > t) t = s->ready;
    for (auto& p : defaults)
      if (p.second->dev == cur && p.second->ready > t) t = p.second->ready;
  }
  say("cudaDeviceSynchronize");
  sleep_until(t);
  return cudaSuccess;
}

// Errors.
X E cudaGetLastError() {
  E e = last;
  last = cudaSuccess;
  return e;
}
X E cudaPeekAtLastError() { return last; }
X const char* cudaGetErrorString(E e) {
  static thread_local char b[64];
  switch ((int)e) {
    case 0:
      return "no error";
    case 2:
      return "out of memory";
    case 900:
      return "operation not permitted when stream is capturing";
    case 901:
      return "operation failed due to a previous error during capture";
    case 904:
      return "capture sequence contains an unjoined stream";
    case 906:
      return "operation would make the legacy stream depend on a capturing blocking stream";
    case 905:
      return "dependency created on uncaptured work in another stream";
  }
  snprintf(b, 64, "fake error %d", (int)e);
  return b;
}
X const char* cudaGetErrorName(E e) {
  static thread_local char b[64];
  snprintf(b, 64, "cudaError%d", (int)e);
  return b;
}
