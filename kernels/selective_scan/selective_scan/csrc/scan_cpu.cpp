// The selective scan on the CPU, forward and adjoint, float32. Called from cpu.py through ctypes.
//
// LANES channels of one group lie side by side and time is cut into chunks of CHUNK steps: a Tile holds one
// quantity of one block of channels over one chunk. For one state index n at a time, the recurrence
//
//     h_t = exp(delta_t A_n) h_{t-1} + delta_t u_t B_t[n],    y_t += C_t[n] h_t
//
// runs over a tile with the state in registers; all inner loops have LANES iterations and contiguous operands,
// so that the compiler turns them into whole vectors of whatever width the machine has. A block with fewer than
// LANES channels is filled with u = delta = 0, which adds nothing to any result.
//
// The forward pass keeps the state at the start of every chunk; the backward pass goes through the chunks in
// reverse, recomputes the states of each and runs the adjoint g_t = C_t dy_t + exp(delta_{t+1} A) g_{t+1}.
//
// Sizes: u, delta, y (batch, groups * channels, length); A (groups * channels, states);
// B, C (batch, groups, states, length); D, bias (groups * channels) or null. All contiguous.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int LANES = 16;
constexpr int CHUNK = 64;
constexpr float LOG2E = 1.44269504f;

struct alignas(64) Lanes {
    float lane[LANES] = {};
    float &operator[](int i) { return lane[i]; }
    float operator[](int i) const { return lane[i]; }
};

struct Tile {
    Lanes step[CHUNK];
    Lanes &operator[](int t) { return step[t]; }
    const Lanes &operator[](int t) const { return step[t]; }
};

// 2^z to float32 rounding: 0 below z = -126.5, inf above 127.5, exactly 1 at 0.
inline float exp2_fast(float z) {
    z = z < -127.0f ? -127.0f : z;  // written so that NaN stays NaN
    z = z > 128.0f ? 128.0f : z;
    const float whole = std::rint(z);
    const float f = z - whole;
    float p = 1.5353362e-4f;  // minimax on [-1/2, 1/2], relative error 2e-9 before rounding
    p = p * f + 1.3398875e-3f;
    p = p * f + 9.6184374e-3f;
    p = p * f + 5.5503325e-2f;
    p = p * f + 2.4022648e-1f;
    p = p * f + 6.9314720e-1f;
    p = p * f + 1.0f;
    const uint32_t bits = static_cast<uint32_t>(static_cast<int32_t>(whole) + 127) << 23;  // 2^whole; 0, inf at the ends
    float scale;
    std::memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

// log(1 + v) = 2 atanh(v / (2 + v)) for v in [0, 1], relative error 1e-7.
inline float log1p_fast(float v) {
    const float s = v / (2.0f + v);
    const float w = s * s;
    float q = 0.28178359f;
    q = q * w + 0.27960597f;
    q = q * w + 0.40024911f;
    q = q * w + 0.66666315f;
    q = q * w + 2.0f;
    return s * q;
}

inline float softplus(float x) {
    return (x < 0.0f ? 0.0f : x) + log1p_fast(exp2_fast(-std::fabs(x) * LOG2E));
}

inline float sigmoid(float x) {
    const float v = exp2_fast(-std::fabs(x) * LOG2E);
    return (x > 0.0f ? 1.0f : v) / (1.0f + v);
}

// One call's arguments that both passes share.
struct Problem {
    const float *u, *delta, *A, *B, *C, *D, *bias;
    int64_t batch, groups, channels, states, length;
    bool softplus_steps;

    int64_t blocks() const { return (channels + LANES - 1) / LANES; }
    int64_t chunks() const { return (length + CHUNK - 1) / CHUNK; }
};

// One block of channels of one group of one sequence.
struct Block {
    int64_t channel;   // its first channel, of groups * channels
    int64_t row;       // the same, of batch * groups * channels
    int64_t borders;   // its place in the saved states: (batch, groups, blocks, chunks, states) of Lanes
    int lanes;         // channels it really has

    Block(const Problem &p, int64_t sequence, int64_t group, int64_t block) {
        channel = group * p.channels + block * LANES;
        row = sequence * p.groups * p.channels + channel;
        borders = ((sequence * p.groups + group) * p.blocks() + block) * p.chunks() * p.states;
        lanes = static_cast<int>(std::min<int64_t>(LANES, p.channels - block * LANES));
    }
};

// rows[lane * stride + t] -> tile[t][lane], zero in the lanes beyond.
void load(Tile &tile, const float *rows, int64_t stride, int lanes, int steps) {
    for (int lane = 0; lane < LANES; ++lane) {
        const float *row = rows + lane * stride;
        for (int t = 0; t < steps; ++t) tile[t][lane] = lane < lanes ? row[t] : 0.0f;
    }
}

void store(const Tile &tile, float *rows, int64_t stride, int lanes, int steps) {
    for (int lane = 0; lane < lanes; ++lane)
        for (int t = 0; t < steps; ++t) rows[lane * stride + t] = tile[t][lane];
}

// A vector of `stride` apart values, zero in the lanes beyond and where there is none.
Lanes load_lanes(const float *values, int64_t stride, int lanes) {
    Lanes out;
    for (int lane = 0; values && lane < lanes; ++lane) out[lane] = values[lane * stride];
    return out;
}

// A[n] of the block's channels, times log2(e).
void load_rates(std::vector<Lanes> &rates, const Problem &p, const Block &block) {
    for (int64_t n = 0; n < p.states; ++n) {
        rates[n] = load_lanes(p.A + block.channel * p.states + n, p.states, block.lanes);
        for (int i = 0; i < LANES; ++i) rates[n][i] *= LOG2E;
    }
}

// What both passes read of a block's chunk: the steps and the inputs delta * u.
struct Inputs {
    Tile u, raw, delta, du;  // raw: delta + bias, before the softplus; du: delta * u

    void load_chunk(const Problem &p, const Block &block, const Lanes &bias, int64_t start, int steps) {
        const int64_t offset = block.row * p.length + start;
        load(u, p.u + offset, p.length, block.lanes, steps);
        load(raw, p.delta + offset, p.length, block.lanes, steps);
        Lanes present;
        for (int i = 0; i < block.lanes; ++i) present[i] = 1.0f;
        for (int t = 0; t < steps; ++t)
#pragma omp simd
            for (int i = 0; i < LANES; ++i) delta[t][i] = raw[t][i] += bias[i];
        if (p.softplus_steps)
            for (int t = 0; t < steps; ++t)
#pragma omp simd
                for (int i = 0; i < LANES; ++i) delta[t][i] = softplus(raw[t][i]);
        for (int t = 0; t < steps; ++t) {
#pragma omp simd
            for (int i = 0; i < LANES; ++i) {
                delta[t][i] *= present[i];
                du[t][i] = delta[t][i] * u[t][i];
            }
        }
    }
};

// One state index over a chunk: advances h and adds C h to y.
void scan(const Inputs &in, const Lanes &rate, const float *b, const float *c, int steps, Lanes &state, Tile &y) {
    Lanes h = state;
    for (int t = 0; t < steps; ++t) {
#pragma omp simd
        for (int i = 0; i < LANES; ++i) {
            h[i] = exp2_fast(in.delta[t][i] * rate[i]) * h[i] + in.du[t][i] * b[t];
            y[t][i] += c[t] * h[i];
        }
    }
    state = h;
}

void forward_block(const Problem &p, const Block &block, const float *b, const float *c, float *y, Lanes *borders,
                   Inputs &in, Tile &out, std::vector<Lanes> &rates, std::vector<Lanes> &h) {
    const Lanes bias = load_lanes(p.bias ? p.bias + block.channel : nullptr, 1, block.lanes);
    const Lanes skip = load_lanes(p.D ? p.D + block.channel : nullptr, 1, block.lanes);
    load_rates(rates, p, block);
    std::fill(h.begin(), h.end(), Lanes());
    for (int64_t start = 0; start < p.length; start += CHUNK) {
        const int steps = static_cast<int>(std::min<int64_t>(CHUNK, p.length - start));
        in.load_chunk(p, block, bias, start, steps);
        if (borders) std::copy(h.begin(), h.end(), borders + block.borders + start / CHUNK * p.states);
        for (int t = 0; t < steps; ++t)
#pragma omp simd
            for (int i = 0; i < LANES; ++i) out[t][i] = skip[i] * in.u[t][i];
        for (int64_t n = 0; n < p.states; ++n)
            scan(in, rates[n], b + n * p.length + start, c + n * p.length + start, steps, h[n], out);
        store(out, y + block.row * p.length + start, p.length, block.lanes, steps);
    }
}

// What the adjoint of a chunk adds up over the states: sums[t] = sum_n g B, pulls[t] = sum_n g A exp(delta A) h_{t-1}.
struct Sums {
    Tile gB, pull;
};

// One state index over a chunk, backwards. `carry` is the adjoint that comes in from the chunk after, times its first
// decay; `dA_sum`, `sums` and, per step and lane, `dB` and `dC` are added to.
void adjoint(const Inputs &in, const Tile &dy, const Lanes &rate, const float *b, const float *c, int steps,
             const Lanes &border, Lanes &carry, Lanes &dA_sum, Sums &sums, Tile &dB, Tile &dC, Tile &decays,
             Tile &states) {
    Lanes h = border;  // states[t] is the state before step t
    for (int t = 0; t < steps; ++t) {
#pragma omp simd
        for (int i = 0; i < LANES; ++i) {
            const float decay = exp2_fast(in.delta[t][i] * rate[i]);
            decays[t][i] = decay;
            states[t][i] = h[i];
            h[i] = decay * h[i] + in.du[t][i] * b[t];
            dC[t][i] += dy[t][i] * h[i];
        }
    }
    Lanes g = carry, dA = dA_sum;
    for (int t = steps - 1; t >= 0; --t) {
#pragma omp simd
        for (int i = 0; i < LANES; ++i) {
            const float full = g[i] + c[t] * dy[t][i];
            sums.gB[t][i] += full * b[t];
            dB[t][i] += full * in.du[t][i];
            g[i] = full * decays[t][i];
            const float pull = g[i] * states[t][i];
            sums.pull[t][i] += pull * rate[i];
            dA[i] += pull * in.delta[t][i];
        }
    }
    carry = g;
    dA_sum = dA;
}

// Sum over the lanes of every step.
void reduce(const Tile &tile, float *out, int steps) {
    for (int t = 0; t < steps; ++t) {
        Lanes sum = tile[t];
        for (int half = LANES / 2; half > 0; half /= 2)
            for (int i = 0; i < half; ++i) sum[i] += sum[i + half];
        out[t] = sum[0];
    }
}

// Gradients of one call. `dB`, `dC` have a leading dimension of `parts` and dA, dD, dbias one of `batch`,
// over which the caller sums.
struct Gradients {
    const float *dy;
    float *u, *delta, *A, *B, *C, *D, *bias;
};

// What a thread needs for the backward pass of some blocks of one group of one sequence.
struct Backward {
    struct Carried {  // per block, from chunk to chunk
        std::vector<Lanes> rates, g, dA;
        Lanes bias, skip, dD, dbias;
    };
    Inputs in;
    Tile dy, decays, states;
    Sums sums;
    std::vector<Tile> dB, dC;  // per state
    std::vector<Carried> carried;

    explicit Backward(const Problem &p) : dB(p.states), dC(p.states) {}

    void run(const Problem &p, const Gradients &grads, const Lanes *borders, int64_t sequence, int64_t group,
             int64_t first, int64_t last, int64_t part) {
        const int64_t projections = (sequence * p.groups + group) * p.states * p.length;
        const int64_t summed = part * p.batch * p.groups * p.states * p.length + projections;
        carried.resize(last - first);
        for (int64_t i = first; i < last; ++i) begin(p, Block(p, sequence, group, i), carried[i - first]);
        for (int64_t chunk = p.chunks() - 1; chunk >= 0; --chunk) {
            const int64_t start = chunk * CHUNK;
            const int steps = static_cast<int>(std::min<int64_t>(CHUNK, p.length - start));
            std::fill(dB.begin(), dB.end(), Tile());
            std::fill(dC.begin(), dC.end(), Tile());
            for (int64_t i = first; i < last; ++i) {
                const Block block(p, sequence, group, i);
                run_chunk(p, grads, block, carried[i - first], projections + start, start, steps,
                          borders + block.borders + chunk * p.states);
            }
            for (int64_t n = 0; n < p.states; ++n) {
                reduce(dB[n], grads.B + summed + n * p.length + start, steps);
                reduce(dC[n], grads.C + summed + n * p.length + start, steps);
            }
        }
        for (int64_t i = first; i < last; ++i)
            finish(p, grads, Block(p, sequence, group, i), carried[i - first]);
    }

    void begin(const Problem &p, const Block &block, Carried &state) {
        state.rates.resize(p.states);
        load_rates(state.rates, p, block);
        state.g.assign(p.states, Lanes());
        state.dA.assign(p.states, Lanes());
        state.bias = load_lanes(p.bias ? p.bias + block.channel : nullptr, 1, block.lanes);
        state.skip = load_lanes(p.D ? p.D + block.channel : nullptr, 1, block.lanes);
        state.dD = state.dbias = Lanes();
    }

    void run_chunk(const Problem &p, const Gradients &grads, const Block &block, Carried &state, int64_t projections,
                   int64_t start, int steps, const Lanes *borders) {
        const int64_t offset = block.row * p.length + start;
        in.load_chunk(p, block, state.bias, start, steps);
        load(dy, grads.dy + offset, p.length, block.lanes, steps);
        sums = Sums();
        for (int64_t n = 0; n < p.states; ++n)
            adjoint(in, dy, state.rates[n], p.B + projections + n * p.length, p.C + projections + n * p.length, steps,
                    borders[n], state.g[n], state.dA[n], sums, dB[n], dC[n], decays, states);
        Tile &du = sums.gB, &ddelta = sums.pull;
        for (int t = 0; t < steps; ++t) {
#pragma omp simd
            for (int i = 0; i < LANES; ++i) {
                const float gB = sums.gB[t][i];
                ddelta[t][i] = in.u[t][i] * gB + sums.pull[t][i] * (1.0f / LOG2E);  // the rates were times log2(e)
                du[t][i] = in.delta[t][i] * gB + state.skip[i] * dy[t][i];
                state.dD[i] += dy[t][i] * in.u[t][i];
            }
        }
        if (p.softplus_steps)
            for (int t = 0; t < steps; ++t)
#pragma omp simd
                for (int i = 0; i < LANES; ++i) ddelta[t][i] *= sigmoid(in.raw[t][i]);
        for (int t = 0; t < steps; ++t)
#pragma omp simd
            for (int i = 0; i < LANES; ++i) state.dbias[i] += ddelta[t][i];
        store(du, grads.u + offset, p.length, block.lanes, steps);
        store(ddelta, grads.delta + offset, p.length, block.lanes, steps);
    }

    void finish(const Problem &p, const Gradients &grads, const Block &block, const Carried &state) {
        for (int lane = 0; lane < block.lanes; ++lane) {
            grads.D[block.row + lane] = state.dD[lane];
            grads.bias[block.row + lane] = state.dbias[lane];
            for (int64_t n = 0; n < p.states; ++n)
                grads.A[(block.row + lane) * p.states + n] = state.dA[n][lane];
        }
    }
};

}  // namespace

extern "C" {

// Number of floats of `borders`.
int64_t selective_scan_borders(int64_t batch, int64_t groups, int64_t channels, int64_t states, int64_t length) {
    const Problem p{nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
                    batch,   groups,  channels, states, length, false};
    return batch * groups * p.blocks() * p.chunks() * states * LANES;
}

// Writes y and, unless null, `borders` for the backward pass.
void selective_scan_forward(const float *u, const float *delta, const float *A, const float *B, const float *C,
                            const float *D, const float *bias, int64_t batch, int64_t groups, int64_t channels,
                            int64_t states, int64_t length, int64_t softplus_steps, int64_t threads, float *y,
                            float *borders) {
    const Problem p{u, delta, A, B, C, D, bias, batch, groups, channels, states, length, softplus_steps != 0};
    const int64_t tasks = batch * groups * p.blocks();
#pragma omp parallel num_threads(static_cast<int>(threads))
    {
        Inputs in;
        Tile out;
        std::vector<Lanes> rates(states), h(states);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < tasks; ++task) {
            const int64_t pair = task / p.blocks();  // of (sequence, group)
            const Block block(p, pair / groups, pair % groups, task % p.blocks());
            forward_block(p, block, B + pair * states * length, C + pair * states * length, y,
                          reinterpret_cast<Lanes *>(borders), in, out, rates, h);
        }
    }
}

// Writes every gradient: du, ddelta; dB, dC (parts, batch, groups, states, length); dA (batch, groups * channels,
// states); dD, dbias (batch, groups * channels). The blocks of a group are cut into `parts` tasks,
// at most one per block.
void selective_scan_backward(const float *u, const float *delta, const float *A, const float *B, const float *C,
                             const float *D, const float *bias, int64_t batch, int64_t groups, int64_t channels,
                             int64_t states, int64_t length, int64_t softplus_steps, int64_t threads,
                             const float *borders, int64_t parts, const float *dy, float *du, float *ddelta, float *dA,
                             float *dB, float *dC, float *dD, float *dbias) {
    const Problem p{u, delta, A, B, C, D, bias, batch, groups, channels, states, length, softplus_steps != 0};
    const Gradients grads{dy, du, ddelta, dA, dB, dC, dD, dbias};
#pragma omp parallel num_threads(static_cast<int>(threads))
    {
        Backward backward(p);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < batch * groups * parts; ++task) {
            const int64_t pair = task / parts, part = task % parts;
            backward.run(p, grads, reinterpret_cast<const Lanes *>(borders), pair / groups, pair % groups,
                         part * p.blocks() / parts, (part + 1) * p.blocks() / parts, part);
        }
    }
}

}  // extern "C"
