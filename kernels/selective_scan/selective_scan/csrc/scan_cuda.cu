// The selective scan and the cross-scan for CUDA, forward and adjoint (see scan.h). Called through ctypes.
//
// A thread has one channel of one direction over one chunk of time, with all its states in registers; the lanes of a
// warp have neighbouring channels, so that activations are read in whole lines and everything that a position shares
// between channels (positions, B, C, the ranks of the step sizes) is staged once per block, in shared memory.
//
// Chunks run in parallel. Since the recurrence is linear, a chunk started from zero ends in the state that its inputs
// alone produce, and what it was really started from decays by exp(A * sum of its step sizes). So the forward pass is
//
//     scan_chunks<false>   every chunk from zero: its end state, the sum of its step sizes
//     carry_states         the true state at every chunk's start, one chunk after the other
//     scan_chunks<true>    every chunk from its start state: outputs
//
// and the backward pass the same in reverse for the adjoint g_t = C_t dy_t + exp(delta_{t+1} A) g_{t+1}, with the
// states of a chunk recomputed from its start state. Sums over directions are atomic additions of two terms onto zero,
// the result of which does not depend on their order; sums over channels and chunks are left to the caller in pieces.
// Results are the same from run to run.

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "scan.h"

#ifdef __CUDACC__
#include <cuda_fp16.h>
#include <cuda_runtime.h>
template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared, cudaStream_t stream,
            Arguments... arguments) {
    kernel<<<grid, threads, shared, stream>>>(arguments...);
}
#else
#include "cuda_emulator.h"  // the same on the CPU, a thread at a time: for tests where there is no GPU
#endif

namespace {

constexpr int STATES = MAX_STATES;
constexpr int CHUNK = 64;
constexpr int PART = 8;  // steps whose states are held at a time in the backward pass
constexpr int WARP = 32;
constexpr int MAX_THREADS = 128;
constexpr float LOG2E = 1.44269504f;
constexpr unsigned ALL_LANES = 0xffffffffu;

struct Half {
    uint16_t bits;
};
struct BFloat16 {
    uint16_t bits;
};

__device__ float value(float x) { return x; }
__device__ float value(Half x) { return __half2float(__ushort_as_half(x.bits)); }
__device__ float value(BFloat16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }

__device__ float exp2_fast(float x) {
#ifdef __CUDA_ARCH__
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return exp2f(x);
#endif
}

__device__ float softplus(float x) { return fmaxf(x, 0.0f) + log1pf(exp2_fast(-fabsf(x) * LOG2E)); }

__device__ float sigmoid(float x) {
    const float v = exp2_fast(-fabsf(x) * LOG2E);
    return (x > 0.0f ? 1.0f : v) / (1.0f + v);
}

__host__ __device__ int64_t chunks(const Scan &s) { return (s.length + CHUNK - 1) / CHUNK; }

// The chunks of all sequences lie side by side along x, which alone has room for many.
__device__ unsigned chunks_launched(const Scan &s) { return gridDim.x / static_cast<unsigned>(s.batch); }
__device__ unsigned chunk_of_block(const Scan &s) { return blockIdx.x % chunks_launched(s); }

// What the threads of a block share: positions and projections of the steps of a chunk.
template <typename T, int RANK>
struct Staged {
    static constexpr int STRIDE = 2 * STATES + RANK;  // of a row: B, C, ranks

    int positions[CHUNK], partners[CHUNK];
    alignas(16) float rows[CHUNK * STRIDE];

    __device__ void load(const Scan &s, int64_t sequence, int direction, int64_t start, int steps) {
        const int tid = threadIdx.x, width = s.rank + 2 * s.states, rank = s.rank, states = s.states;
        const ScanPath path = RANK ? s.paths[direction] : ScanPath{0, s.length, 0, 1};
        const bool limbs = RANK && s.limbs[direction];
        for (int t = tid; t < steps; t += blockDim.x) {
            const int step = start + t, inner = path.inner;
            const int position = path.start + step / inner * path.outer_step + step % inner * path.inner_step;
            const int joint = limbs ? position % static_cast<int>(s.joints) : 0;
            positions[t] = position;
            partners[t] = limbs ? position - joint + s.partners[joint] : position;
        }
        for (int i = tid; i < steps * STRIDE; i += blockDim.x) rows[i] = 0.0f;
        __syncthreads();
        const T *projections =
            static_cast<const T *>(s.projections) + (sequence * s.length * s.directions + direction) * width;
        const int64_t apart = s.directions * width;  // from position to position
        for (int i = tid; i < steps * width; i += blockDim.x) {
            const int t = i / width, c = i % width;
            const int column = c < rank ? 2 * STATES + c : c < rank + states ? c - rank : STATES + c - rank - states;
            float sum = value(projections[positions[t] * apart + c]);
            if (limbs) sum += value(projections[partners[t] * apart + c]);
            rows[t * STRIDE + column] = sum;
        }
        __syncthreads();
    }

    __device__ const float *B(int t) const { return rows + t * STRIDE; }
    __device__ const float *C(int t) const { return rows + t * STRIDE + STATES; }
    __device__ const float *ranks(int t) const { return rows + t * STRIDE + 2 * STATES; }
};

// The channel of a thread, in one direction of one sequence, over one chunk.
template <typename T, int RANK>
struct Channel {
    const Scan &s;
    const Staged<T, RANK> &staged;
    int64_t sequence, chunk;
    int direction, index, steps;  // index: of s.channels
    bool active;                  // false in the lanes beyond the last channel: they compute with zeros
    float rate[STATES], weight[RANK > 0 ? RANK : 1], bias, skip;

    __device__ Channel(const Scan &s_, Staged<T, RANK> &shared, int64_t chunk_) : s(s_), staged(shared), chunk(chunk_) {
        sequence = blockIdx.x / chunks_launched(s);
        direction = blockIdx.y % static_cast<int>(s.directions);
        index = blockIdx.y / static_cast<int>(s.directions) * blockDim.x + threadIdx.x;
        active = index < s.channels;
        const int64_t start = chunk * CHUNK;
        steps = s.length - start < CHUNK ? s.length - start : CHUNK;
        shared.load(s, sequence, direction, start, steps);
        const int64_t row = of_all();
#pragma unroll
        for (int n = 0; n < STATES; ++n) rate[n] = active && n < s.states ? s.A[row * s.states + n] * LOG2E : 0.0f;
#pragma unroll
        for (int r = 0; r < RANK; ++r) weight[r] = active && r < s.rank ? s.step_weight[row * s.rank + r] : 0.0f;
        bias = active && s.bias ? s.bias[row] : 0.0f;
        skip = active && s.D ? s.D[row] : 0.0f;
    }

    __device__ int64_t of_all() const { return direction * s.channels + index; }  // of directions * channels

    // Where step t's entry of u, y or, in the plain scan, step_sizes is; `position` of the step or of its partner.
    __device__ int64_t at(int position) const {
        const int64_t place = sequence * s.length + position;
        return RANK ? place * s.channels + index : place * s.directions * s.channels + of_all();
    }

    // The half of the directions to which the result of a cross-scan is added.
    __device__ int64_t half() const { return RANK ? direction % 2 * s.batch * s.length * s.channels : 0; }

    // Where the chunk's entries of (batch, directions, chunks, channels) are.
    __device__ int64_t at_chunk(int64_t c) const {
        return ((sequence * s.directions + direction) * chunks(s) + c) * s.channels + index;
    }

    // The same in (batch, directions, chunks, STATES, channels).
    __device__ int64_t at_saved(int64_t c, int n) const {
        return (((sequence * s.directions + direction) * chunks(s) + c) * STATES + n) * s.channels + index;
    }

    __device__ float u(int t) const {
        if (!active) return 0.0f;
        const T *all = static_cast<const T *>(s.u);
        const int position = staged.positions[t], partner = staged.partners[t];
        const float own = value(all[at(position)]);
        return RANK && s.limbs[direction] ? own + value(all[at(partner)]) : own;
    }

    __device__ float raw_step(int t) const {
        float sum = bias;
        if constexpr (RANK > 0) {
#pragma unroll
            for (int r = 0; r < RANK; ++r) sum += weight[r] * staged.ranks(t)[r];
        } else if (active) {
            sum += value(static_cast<const T *>(s.step_sizes)[at(staged.positions[t])]);
        }
        return sum;
    }

    __device__ float step(float raw) const { return s.softplus ? softplus(raw) : raw; }
};

// One step of the states; their output.
__device__ float advance(float (&h)[STATES], const float (&rate)[STATES], float delta, float du, const float *B,
                         const float *C) {
    float y = 0.0f;
#pragma unroll
    for (int n = 0; n < STATES; ++n) {
        h[n] = exp2_fast(delta * rate[n]) * h[n] + du * B[n];
        y += h[n] * C[n];
    }
    return y;
}

// Adds one of at most two terms per entry in the cross-scan, and is the only one in the plain scan.
template <int RANK>
__device__ void put(float *to, float x) {
    if (RANK)
        atomicAdd(to, x);
    else
        *to = x;
}

template <typename T, int RANK, bool OUTPUT>
__global__ __launch_bounds__(MAX_THREADS) void scan_chunks(Scan s, float *y, float *saved_states, float *sums) {
    __shared__ Staged<T, RANK> staged;
    Channel<T, RANK> c(s, staged, chunk_of_block(s));
    float h[STATES], sum = 0.0f;
#pragma unroll
    for (int n = 0; n < STATES; ++n) h[n] = OUTPUT && c.active ? saved_states[c.at_saved(c.chunk, n)] : 0.0f;
    for (int t = 0; t < c.steps; ++t) {
        const float u = c.u(t), delta = c.step(c.raw_step(t));
        const float out = advance(h, c.rate, delta, delta * u, staged.B(t), staged.C(t)) + c.skip * u;
        sum += delta;
        if (OUTPUT && c.active) put<RANK>(y + c.half() + c.at(staged.positions[t]), out);
    }
    if (!OUTPUT && c.active) {
#pragma unroll
        for (int n = 0; n < STATES; ++n) saved_states[c.at_saved(c.chunk + 1, n)] = h[n];
        sums[c.at_chunk(c.chunk)] = sum;
    }
}

// A thread per state of a channel. Forwards, saved_states[c + 1] becomes the state after chunk c from what chunk c
// leaves when started from zero; backwards, saved_states[c - 1] becomes the adjoint before chunk c in the same way.
__global__ void carry(Scan s, float *saved_states, const float *sums, bool backwards) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x, count = chunks(s);
    if (i >= s.batch * s.directions * STATES * s.channels) return;
    const int64_t channel = i % s.channels, n = i / s.channels % STATES, pair = i / s.channels / STATES;
    const int64_t row = pair % s.directions * s.channels + channel;
    const float rate = n < s.states ? s.A[row * s.states + n] * LOG2E : 0.0f;
    float h = 0.0f;
    saved_states[((pair * count + (backwards ? count - 1 : 0)) * STATES + n) * s.channels + channel] = 0.0f;
    for (int64_t done = 0; done < count - 1; ++done) {
        const int64_t chunk = backwards ? count - 1 - done : done, next = backwards ? chunk - 1 : chunk + 1;
        float *saved = saved_states + ((pair * count + next) * STATES + n) * s.channels + channel;
        h = exp2_fast(rate * sums[(pair * count + chunk) * s.channels + channel]) * h + *saved;
        *saved = h;
    }
}

// What the outputs of a chunk alone leave as adjoint before its first step.
template <typename T, int RANK>
__global__ __launch_bounds__(MAX_THREADS) void adjoint_chunks(Scan s, const T *dy, float *carries, float *sums) {
    __shared__ Staged<T, RANK> staged;
    Channel<T, RANK> c(s, staged, chunk_of_block(s) + 1);
    float g[STATES] = {}, sum = 0.0f;
    for (int t = c.steps - 1; t >= 0; --t) {
        const float delta = c.step(c.raw_step(t)), out = c.active ? value(dy[c.at(staged.positions[t])]) : 0.0f;
        sum += delta;
#pragma unroll
        for (int n = 0; n < STATES; ++n) g[n] = (g[n] + staged.C(t)[n] * out) * exp2_fast(delta * c.rate[n]);
    }
    if (!c.active) return;
#pragma unroll
    for (int n = 0; n < STATES; ++n) carries[c.at_saved(c.chunk - 1, n)] = g[n];
    sums[c.at_chunk(c.chunk)] = sum;
}

// Lane i gets the sum over the lanes of x[i].
__device__ float transposed_sum(float (&x)[WARP], int lane) {
#pragma unroll
    for (int width = WARP / 2; width > 0; width /= 2) {
        const bool upper = lane & width;
#pragma unroll
        for (int i = 0; i < width; ++i) {
            const float kept = upper ? x[i + width] : x[i], given = upper ? x[i] : x[i + width];
            x[i] = kept + __shfl_xor_sync(ALL_LANES, given, width);
        }
    }
    return x[0];
}

__device__ float warp_sum(float x) {
#pragma unroll
    for (int width = WARP / 2; width > 0; width /= 2) x += __shfl_xor_sync(ALL_LANES, x, width);
    return x;
}

template <typename T, int RANK>
__global__ __launch_bounds__(MAX_THREADS) void chunk_gradients(Scan s, Gradients grads, const float *carries) {
    static_assert(2 * STATES == WARP, "dB and dC of a step are summed by one warp");
    __shared__ Staged<T, RANK> staged;
    Channel<T, RANK> c(s, staged, chunk_of_block(s));
    const int lane = threadIdx.x % WARP, width = s.rank + 2 * s.states;
    const T *dys = static_cast<const T *>(grads.dy);

    float h[STATES], starts[CHUNK / PART][STATES];  // the states before each part of the chunk
#pragma unroll
    for (int n = 0; n < STATES; ++n) h[n] = c.active ? grads.saved_states[c.at_saved(c.chunk, n)] : 0.0f;
    for (int t = 0; t < c.steps; ++t) {
        if (t % PART == 0)
#pragma unroll
            for (int n = 0; n < STATES; ++n) starts[t / PART][n] = h[n];
        const float delta = c.step(c.raw_step(t));
        advance(h, c.rate, delta, delta * c.u(t), staged.B(t), staged.C(t));
    }

    float g[STATES], dA[STATES] = {}, dweight[RANK > 0 ? RANK : 1] = {}, dbias = 0.0f, dD = 0.0f;
#pragma unroll
    for (int n = 0; n < STATES; ++n) g[n] = c.active ? carries[c.at_saved(c.chunk, n)] : 0.0f;
    for (int part = (c.steps - 1) / PART; part >= 0; --part) {
        const int first = part * PART, last = c.steps < first + PART ? c.steps : first + PART;
        float before[PART][STATES];  // the states before each step
#pragma unroll
        for (int n = 0; n < STATES; ++n) h[n] = starts[part][n];
        for (int t = first; t < last; ++t) {
#pragma unroll
            for (int n = 0; n < STATES; ++n) before[t - first][n] = h[n];
            const float delta = c.step(c.raw_step(t));
            advance(h, c.rate, delta, delta * c.u(t), staged.B(t), staged.C(t));
        }
        for (int t = last - 1; t >= first; --t) {
            const int64_t at = c.at(staged.positions[t]);
            const float out = c.active ? value(dys[at]) : 0.0f;
            const float u = c.u(t), raw = c.raw_step(t), delta = c.step(raw), du = delta * u;
            const float *B = staged.B(t), *C = staged.C(t);
            float shared[WARP], gB = 0.0f, pull = 0.0f;  // pull: sum of g A exp(delta A) h_{t-1}, times log2(e)
#pragma unroll
            for (int n = 0; n < STATES; ++n) {
                const float decayed = exp2_fast(delta * c.rate[n]), full = g[n] + C[n] * out;
                const float kept = decayed * before[t - first][n];
                gB += full * B[n];
                shared[n] = full * du;
                shared[STATES + n] = out * (kept + du * B[n]);
                g[n] = full * decayed;
                pull += full * kept * c.rate[n];
                dA[n] += full * kept * delta;
            }
            float ddelta = u * gB + pull * (1.0f / LOG2E);
            if (s.softplus) ddelta *= sigmoid(raw);
            dbias += ddelta;
            dD += out * u;

            // One row of the gradient of the projections per warp: its part of the sum over the channels.
            const int64_t place = (c.direction * s.batch + c.sequence) * s.length + staged.positions[t];
            float *row = grads.projections + (c.index / WARP * s.directions * s.batch * s.length + place) * width;
            const float total = transposed_sum(shared, lane);
            const int n = lane % STATES;
            const bool any = c.index / WARP * WARP < s.channels;  // of the warp's channels are there
            if (any && n < s.states) row[s.rank + (lane < STATES ? 0 : s.states) + n] = total;
#pragma unroll
            for (int r = 0; r < RANK; ++r) {
                const float of_rank = warp_sum(ddelta * c.weight[r]);
                if (any && lane == r && r < s.rank) row[r] = of_rank;
                dweight[r] += ddelta * staged.ranks(t)[r];
            }
            if (c.active) {
                put<RANK>(grads.u + c.half() + at, delta * gB + c.skip * out);
                if (!RANK) grads.step_sizes[at] = ddelta;
            }
        }
    }

    if (!c.active) return;
    const int64_t entry = (c.sequence * chunks(s) + c.chunk) * s.directions * s.channels + c.of_all();
    grads.bias[entry] = dbias;
    grads.D[entry] = dD;
#pragma unroll
    for (int n = 0; n < STATES; ++n)
        if (n < s.states) grads.A[entry * s.states + n] = dA[n];
#pragma unroll
    for (int r = 0; r < RANK; ++r)
        if (r < s.rank) grads.step_weight[entry * s.rank + r] = dweight[r];
}

int threads(const Scan &s) {
    const int rounded = static_cast<int>((s.channels + WARP - 1) / WARP) * WARP;
    return rounded < MAX_THREADS ? rounded : MAX_THREADS;
}

dim3 grid(const Scan &s, int64_t count) {
    const int64_t tiles = (s.channels + threads(s) - 1) / threads(s);
    return dim3(static_cast<unsigned>(count * s.batch), static_cast<unsigned>(tiles * s.directions));
}

void carry_all(const Scan &s, float *saved_states, const float *sums, bool backwards, cudaStream_t stream) {
    const int64_t all = s.batch * s.directions * STATES * s.channels;
    launch(carry, dim3(static_cast<unsigned>((all + MAX_THREADS - 1) / MAX_THREADS)), MAX_THREADS, 0, stream, s,
           saved_states, sums, backwards);
}

template <typename T, int RANK>
void forward(const Scan &s, float *y, float *saved_states, float *sums, cudaStream_t stream) {
    if (chunks(s) > 1)
        launch(scan_chunks<T, RANK, false>, grid(s, chunks(s) - 1), threads(s), 0, stream, s, y, saved_states, sums);
    carry_all(s, saved_states, sums, false, stream);
    launch(scan_chunks<T, RANK, true>, grid(s, chunks(s)), threads(s), 0, stream, s, y, saved_states, sums);
}

template <typename T, int RANK>
void backward(const Scan &s, const Gradients &grads, float *carries, float *sums, cudaStream_t stream) {
    const T *dy = static_cast<const T *>(grads.dy);
    if (chunks(s) > 1)
        launch(adjoint_chunks<T, RANK>, grid(s, chunks(s) - 1), threads(s), 0, stream, s, dy, carries, sums);
    carry_all(s, carries, sums, true, stream);
    launch(chunk_gradients<T, RANK>, grid(s, chunks(s)), threads(s), 0, stream, s, grads,
           static_cast<const float *>(carries));
}

template <int rank>
using Rank = std::integral_constant<int, rank>;

// Calls run(type, rank) with an argument of the element type and an integral constant not below the rank.
template <typename T, typename F>
void with_rank(const Scan &s, F run) {
    if (s.rank == 0) run(T(), Rank<0>());
    else if (s.rank <= 4) run(T(), Rank<4>());
    else if (s.rank <= 8) run(T(), Rank<8>());
    else run(T(), Rank<32>());
}

template <typename F>
int64_t dispatch(const Scan &s, int64_t dtype, int64_t device, F run) {
    cudaError_t error = cudaSetDevice(static_cast<int>(device));
    if (error != cudaSuccess) return error;
    if (s.batch > 0) {
        if (dtype == 0) with_rank<float>(s, run);
        else if (dtype == 1) with_rank<Half>(s, run);
        else with_rank<BFloat16>(s, run);
    }
    return cudaGetLastError();
}

}  // namespace

extern "C" {

int64_t selective_scan_abi() { return ABI; }
int64_t selective_scan_chunk() { return CHUNK; }

// Why a kernel cannot run on a device, or null.
const char *selective_scan_problem(int64_t device) {
    cudaFuncAttributes attributes;
    cudaError_t error = cudaSetDevice(static_cast<int>(device));
    if (error == cudaSuccess) error = cudaFuncGetAttributes(&attributes, reinterpret_cast<const void *>(carry));
    if (error == cudaSuccess) return nullptr;
    cudaGetLastError();
    return cudaGetErrorString(error);
}

const char *selective_scan_error(int64_t code) { return cudaGetErrorString(static_cast<cudaError_t>(code)); }

// dtype of u, step_sizes, projections: 0 float32, 1 float16, 2 bfloat16. y, all zero before, is like u for the plain
// scan and (2, batch, length, channels) for the cross-scan, to be summed. Returns an error code, 0 if there was none.
int64_t selective_scan_forward(const Scan *s, int64_t dtype, int64_t device, void *stream, float *y,
                               float *saved_states, float *sums) {
    return dispatch(*s, dtype, device, [&](auto type, auto rank) {
        forward<decltype(type), decltype(rank)::value>(*s, y, saved_states, sums, static_cast<cudaStream_t>(stream));
    });
}

// `carries` is like saved_states. Gradients of u are all zero before; projections have a part per 32 channels, the rest
// (batch * chunks) pieces.
int64_t selective_scan_backward(const Scan *s, const Gradients *grads, int64_t dtype, int64_t device, void *stream,
                                float *carries, float *sums) {
    return dispatch(*s, dtype, device, [&](auto type, auto rank) {
        backward<decltype(type), decltype(rank)::value>(*s, *grads, carries, sums, static_cast<cudaStream_t>(stream));
    });
}

}  // extern "C"
