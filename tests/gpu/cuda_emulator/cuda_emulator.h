// Just enough of CUDA to run scan_cuda.cu on a CPU: a block at a time, its threads as fibers that are switched where
// they wait for each other. Kernels must reach every barrier and shuffle with all threads of the block, as ours do.
//
// Shared memory is static storage, one block's at a time; atomics need nothing, since one fiber runs at a time.

#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(threads)
#define __shared__ static

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack{new char[1 << 17]};
    bool done = false;
    float given = 0.0f;  // to a shuffle
};
inline std::vector<Fiber> fibers;
inline ucontext_t scheduler;
inline std::function<void()> body;

inline Fiber &current() { return fibers[threadIdx.x]; }

inline void start() {
    body();
    current().done = true;
    swapcontext(&current().context, &scheduler);
}

// Lets every other thread come as far as this one.
inline void wait() {
    const unsigned self = threadIdx.x;
    swapcontext(&fibers[self].context, &scheduler);
}

inline void run_block(unsigned threads) {
    fibers.resize(threads);
    for (unsigned i = 0; i < threads; ++i) {
        Fiber &fiber = fibers[i];
        fiber.done = false;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = 1 << 17;
        makecontext(&fiber.context, start, 0);
    }
    for (bool running = true; running;) {
        running = false;
        for (unsigned i = 0; i < threads; ++i) {
            if (fibers[i].done) continue;
            threadIdx = dim3(i, 0, 0);
            swapcontext(&scheduler, &fibers[i].context);
            running |= !fibers[i].done;
        }
    }
}

}  // namespace emulator

inline void __syncthreads() { emulator::wait(); }

inline float __shfl_xor_sync(unsigned, float x, int mask) {
    emulator::current().given = x;
    emulator::wait();
    const float taken = emulator::fibers[threadIdx.x ^ mask].given;
    emulator::wait();
    return taken;
}

inline float atomicAdd(float *to, float x) {
    const float before = *to;
    *to += x;
    return before;
}

inline float __uint_as_float(unsigned bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

struct __half {
    uint16_t bits;
};
inline __half __ushort_as_half(uint16_t bits) { return {bits}; }
inline float __half2float(__half x) {
    const int exponent = x.bits >> 10 & 31, mantissa = x.bits & 1023;
    const float size = exponent ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24);
    return x.bits >> 15 ? -size : size;
}

using cudaStream_t = void *;
enum cudaError_t { cudaSuccess = 0 };
struct cudaFuncAttributes {};
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *, const void *) { return cudaSuccess; }
inline const char *cudaGetErrorString(cudaError_t) { return "no error"; }

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, int threads, size_t, cudaStream_t, Arguments... arguments) {
    if (threads > 1024 || grid.y > 65535 || grid.z > 65535) std::abort();
    blockDim = dim3(threads, 1, 1);
    gridDim = grid;
    emulator::body = [=] { kernel(arguments...); };
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x) {
                blockIdx = dim3(x, y, z);
                emulator::run_block(threads);
            }
}
