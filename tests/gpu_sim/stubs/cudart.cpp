// A CUDA runtime without a GPU.
//
// Memory is reserved address space that kernels never touch. A kernel does nothing but take time on
// its stream's clock. A recording (stream capture) keeps the names of what was launched, and calls
// that the real runtime refuses while a stream records are refused here with the same error
// numbers. docs/gpu.md explains what is read from the environment.
#include "runtime.h"
#include "devices.h"
#include "memory.h"
#include "streams.h"
#include "recording.h"
// every other function that PyTorch asks for: written by make_stubs.py
#include "cudart_rest.inc"
