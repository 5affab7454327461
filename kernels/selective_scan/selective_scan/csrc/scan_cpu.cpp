// The selective scan and the cross-scan on the CPU, forward and adjoint, float32 (see scan.h). Called through ctypes.
//
// LANES channels lie side by side in a vector and their MAX_STATES states in registers:
//
//     h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t,    y_t = <C_t, h_t> + D u_t
//
// Time is cut into chunks. What does not depend on the state (positions, step sizes, inputs) is computed for a whole
// chunk first, so that the latency of the softplus is hidden; then come the states, step by step. The forward pass
// saves the state at the start of every chunk; the backward pass goes through the chunks in reverse, recomputes the states
// of each and runs the adjoint g_t = C_t dy_t + exp(delta_{t+1} A) g_{t+1}.
//
// The vectors are those of GCC and Clang: of the machine's own width, whatever the machine. Lanes beyond the last
// channel and states beyond the last are zero and stay so.

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#include "scan.h"

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
constexpr int STATES = MAX_STATES;
constexpr int QUAD = 4;  // ranks whose gradients are summed together
constexpr int CHUNK = 64;
constexpr float LOG2E = 1.44269504f;

typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef int32_t Bits __attribute__((vector_size(4 * LANES)));
typedef uint32_t UnsignedBits __attribute__((vector_size(4 * LANES)));

#define INLINE inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))

INLINE Lanes load(const float *p) {
    Lanes v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

INLINE void store(float *p, Lanes v) { std::memcpy(p, &v, sizeof v); }

// The same for the first `lanes` lanes only.
INLINE Lanes load(const float *p, int lanes) {
    if (lanes == LANES) return load(p);
    Lanes v{};
    for (int i = 0; i < lanes; ++i) v[i] = p[i];
    return v;
}

INLINE void store(float *p, Lanes v, int lanes) {
    if (lanes == LANES) return store(p, v);
    for (int i = 0; i < lanes; ++i) p[i] = v[i];
}

// 2^z to float32 rounding, exactly 1 at 0; stays at 2^-126 below and 2^127 above. `growth` may be false where z is not
// above 0: that saves three instructions, but not every NaN stays NaN.
template <bool growth>
INLINE Lanes exp2_fast(Lanes z) {
    constexpr float shift = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the lowest bits
    constexpr int32_t zero = 0x4B400000;  // its bits
    if constexpr (growth) {
        z = z < -126.0f ? Lanes{} - 126.0f : z;
        z = z > 127.0f ? Lanes{} + 127.0f : z;
    } else {
        const UnsignedBits bits = (UnsignedBits)z, least = (UnsignedBits)(Lanes{} - 126.0f);
        z = (Lanes)(bits < least ? bits : least);  // of negative numbers, larger ones have smaller bits
    }
    const Lanes whole = z + shift;
    const Lanes f = z - (whole - shift);
    Lanes p = f * 1.3398875e-3f + 9.6184374e-3f;
    p = p * f + 5.5503325e-2f;
    p = p * f + 2.4022648e-1f;
    p = p * f + 6.9314720e-1f;
    p = p * f + 1.0f;
    if constexpr (!growth) return (Lanes)((Bits)p + ((Bits)whole << 23));
    return p * (Lanes)(((Bits)whole - (zero - 127)) << 23);
}

// log(1 + v) = 2 atanh(v / (2 + v)) for v in [0, 1], relative error 1e-7.
INLINE Lanes log1p_fast(Lanes v) {
    const Lanes s = v / (2.0f + v);
    const Lanes w = s * s;
    Lanes q = w * 0.28178359f + 0.27960597f;
    q = q * w + 0.40024911f;
    q = q * w + 0.66666315f;
    q = q * w + 2.0f;
    return s * q;
}

// exp(-|x|)
INLINE Lanes exp_of_minus_size(Lanes x) { return exp2_fast<false>((x > 0.0f ? -x : x) * LOG2E); }

INLINE Lanes softplus(Lanes x) { return (x < 0.0f ? Lanes{} : x) + log1p_fast(exp_of_minus_size(x)); }

INLINE Lanes sigmoid(Lanes x) {
    const Lanes v = exp_of_minus_size(x);
    return (x > 0.0f ? Lanes{} + 1.0f : v) / (1.0f + v);
}

// In every block of 2 * width lanes: half of a, summed with its other half, beside the same of b.
template <int width, int... i>
INLINE Lanes fold(Lanes a, Lanes b, std::integer_sequence<int, i...>) {
    constexpr auto kept = [](int lane) { return lane + (lane & width ? LANES : 0); };
    constexpr auto other = [](int lane) { return (lane ^ width) + (lane & width ? LANES : 0); };
#ifdef __clang__
    return __builtin_shufflevector(a, b, kept(i)...) + __builtin_shufflevector(a, b, other(i)...);
#else
    return __builtin_shuffle(a, b, Bits{kept(i)...}) + __builtin_shuffle(a, b, Bits{other(i)...});
#endif
}

template <int width>
INLINE Lanes fold(Lanes a, Lanes b) {
    return fold<width>(a, b, std::make_integer_sequence<int, LANES>());
}

// For `count` values f(first), f(first + 1), ...: lane i becomes the sum of f(first + i) over every count-th lane from
// lane i on; over all lanes, then, if count is LANES. Each value is folded into those before it as soon as it is there,
// so that few are alive at a time.
template <int first, int count, int width = 1, typename F>
INLINE Lanes partial_sums(F &&f) {
    if constexpr (width == count) {
        return f(std::integral_constant<int, first>());
    } else {
        const Lanes a = partial_sums<first, count, 2 * width>(f);
        return fold<width>(a, partial_sums<first + width, count, 2 * width>(f));
    }
}

// Completes partial sums over every width-th lane.
template <int width>
INLINE Lanes complete_sums(Lanes x) {
    if constexpr (width < LANES)
        return complete_sums<2 * width>(fold<width>(x, x));
    else
        return x;
}

const float *values(const void *p) { return static_cast<const float *>(p); }

int64_t blocks(const Scan &s) { return (s.channels + LANES - 1) / LANES; }
int64_t chunks(const Scan &s) { return (s.length + CHUNK - 1) / CHUNK; }
int64_t row_size(const Scan &s) { return s.rank ? s.channels : s.directions * s.channels; }

// What all channels of a direction share: positions and projections of the steps of one chunk.
struct Chunk {
    int64_t sequence, direction;
    int steps;
    int64_t places[CHUNK], partners[CHUNK];  // sequence * length + position; the same of the limb partner
    alignas(64) float B[CHUNK][STATES], C[CHUNK][STATES];
    std::vector<float> ranks;  // (CHUNK, rank)

    explicit Chunk(const Scan &s) : ranks(CHUNK * s.rank) {
        std::memset(B, 0, sizeof B);
        std::memset(C, 0, sizeof C);
    }

    void read(const Scan &s, int64_t sequence_, int64_t direction_, int64_t start) {
        sequence = sequence_;
        direction = direction_;
        steps = static_cast<int>(std::min<int64_t>(CHUNK, s.length - start));
        const ScanPath path = s.rank ? s.paths[direction] : ScanPath{0, s.length, 0, 1};
        const bool limbs = has_limbs(s);
        const int64_t size = s.rank + 2 * s.states, row = s.directions * size;
        for (int t = 0; t < steps; ++t) {
            const uint32_t step = static_cast<uint32_t>(start + t), inner = static_cast<uint32_t>(path.inner);
            const int64_t position = path.start + step / inner * path.outer_step + step % inner * path.inner_step;
            const int64_t joint = limbs ? position % s.joints : 0;
            places[t] = sequence * s.length + position;
            partners[t] = limbs ? places[t] - joint + s.partners[joint] : places[t];
            const float *own = values(s.projections) + places[t] * row + direction * size;
            const float *other = values(s.projections) + partners[t] * row + direction * size;
            copy(own, other, limbs, ranks.data() + t * s.rank, s.rank);
            copy(own + s.rank, other + s.rank, limbs, B[t], s.states);
            copy(own + s.rank + s.states, other + s.rank + s.states, limbs, C[t], s.states);
        }
    }

    bool has_limbs(const Scan &s) const { return s.rank && s.limbs[direction]; }

    static INLINE void copy(const float *own, const float *other, bool sum, float *to, int64_t count) {
        int64_t i = 0;
        for (; i + LANES <= count; i += LANES) store(to + i, sum ? load(own + i) + load(other + i) : load(own + i));
        for (; i < count; ++i) to[i] = sum ? own[i] + other[i] : own[i];
    }
};

// One block of channels in one direction of one sequence, and its weights.
struct Block {
    int64_t channel;  // its first, of directions * channels
    int64_t column;   // where its channels are in a row of u and y
    int64_t saved;   // where its states are in `saved_states`, in vectors
    int lanes;        // channels that it has
    bool growth;      // exp(delta A) can be above 1
    Lanes rate[STATES];  // A log2(e)
    Lanes bias, skip;
    std::vector<Lanes> step_weight;

    Block(const Scan &s, int64_t sequence, int64_t direction, int64_t number) {
        const int64_t first = number * LANES;
        channel = direction * s.channels + first;
        column = s.rank ? first : channel;
        saved = ((sequence * s.directions + direction) * blocks(s) + number) * chunks(s) * STATES;
        lanes = static_cast<int>(std::min<int64_t>(LANES, s.channels - first));
        growth = !s.softplus;
        for (int n = 0; n < STATES; ++n) {
            rate[n] = gather(s.A, s.states, n, n < s.states) * LOG2E;
            for (int i = 0; i < LANES; ++i) growth |= !(rate[n][i] <= 0.0f);
        }
        bias = gather(s.bias, 1, 0, s.bias);
        skip = gather(s.D, 1, 0, s.D);
        step_weight.assign((s.rank + QUAD - 1) / QUAD * QUAD, Lanes{});
        for (int r = 0; r < s.rank; ++r) step_weight[r] = gather(s.step_weight, s.rank, r, true);
    }

    // Lane i: entry `offset` of row channel + i; zero if not `present`.
    Lanes gather(const float *array, int64_t stride, int64_t offset, bool present) const {
        Lanes v{};
        for (int i = 0; present && i < lanes; ++i) v[i] = array[(channel + i) * stride + offset];
        return v;
    }
};

// What of one block's chunk does not depend on the states.
struct Inputs {
    Lanes u[CHUNK], raw[CHUNK], delta[CHUNK], du[CHUNK];  // raw: before the softplus; du: delta * u

    void read(const Scan &s, const Chunk &chunk, const Block &block) {
        const float *all = values(s.u) + block.column;
        const int64_t row = row_size(s);
        for (int t = 0; t < chunk.steps; ++t) u[t] = load(all + chunk.places[t] * row, block.lanes);
        if (chunk.has_limbs(s))
            for (int t = 0; t < chunk.steps; ++t) u[t] += load(all + chunk.partners[t] * row, block.lanes);
        if (s.rank) {
            for (int t = 0; t < chunk.steps; ++t) {
                Lanes sum = block.bias;
                for (int r = 0; r < s.rank; ++r) sum += block.step_weight[r] * chunk.ranks[t * s.rank + r];
                raw[t] = sum;
            }
        } else {
            const float *step_sizes = values(s.step_sizes) + block.channel;
            for (int t = 0; t < chunk.steps; ++t)
                raw[t] = block.bias + load(step_sizes + chunk.places[t] * row, block.lanes);
        }
        for (int t = 0; t < chunk.steps; ++t) {
            delta[t] = s.softplus ? softplus(raw[t]) : raw[t];
            du[t] = delta[t] * u[t];
        }
    }
};

// The forward pass of some blocks of one direction of one sequence.
struct Forward {
    struct Carried {
        Block block;
        Lanes h[STATES] = {};
    };
    const Scan &s;
    Chunk chunk;
    Inputs in;
    std::vector<Carried> carried;

    explicit Forward(const Scan &s_) : s(s_), chunk(s_) {}

    // y is added to what is there if `add`.
    void run(int64_t sequence, int64_t direction, int64_t first, int64_t last, bool add, float *y,
             Lanes *saved_states) {
        carried.clear();
        for (int64_t b = first; b < last; ++b) carried.push_back({Block(s, sequence, direction, b)});
        for (int64_t number = 0; number < chunks(s); ++number) {
            chunk.read(s, sequence, direction, number * CHUNK);
            for (auto &[block, h] : carried) {
                if (saved_states) std::copy(h, h + STATES, saved_states + block.saved + number * STATES);
                in.read(s, chunk, block);
                block.growth ? advance<true>(block, h, add, y) : advance<false>(block, h, add, y);
            }
        }
    }

    template <bool growth>
    void advance(const Block &block, Lanes (&state)[STATES], bool add, float *y) {
        const int64_t row = row_size(s);
        Lanes h[STATES];
        std::copy(state, state + STATES, h);
        for (int t = 0; t < chunk.steps; ++t) {
            const Lanes delta = in.delta[t], du = in.du[t];
            Lanes out = block.skip * in.u[t];
#pragma GCC unroll 16
            for (int n = 0; n < STATES; ++n) {
                h[n] = exp2_fast<growth>(delta * block.rate[n]) * h[n] + du * chunk.B[t][n];
                out += h[n] * chunk.C[t][n];
            }
            float *to = y + chunk.places[t] * row + block.column;
            if (add) out += load(to, block.lanes);
            store(to, out, block.lanes);
        }
        std::copy(h, h + STATES, state);
    }
};

// The backward pass of some blocks of one direction of one sequence.
struct Backward {
    struct Carried {
        Block block;
        std::vector<Lanes> dweight;
        Lanes g[STATES] = {}, dA[STATES] = {};  // g: the adjoint of the state, carried from chunk to chunk
        Lanes dD = {}, dbias = {};
    };
    const Scan &s;
    const Gradients &grads;
    Chunk chunk;
    Inputs in;
    Lanes dy[CHUNK], states[CHUNK][STATES], decays[CHUNK][STATES];  // states[t]: before step t
    std::vector<Carried> carried;

    Backward(const Scan &s_, const Gradients &grads_) : s(s_), grads(grads_), chunk(s_) {}

    // du is added to what is there if `add`.
    void run(int64_t sequence, int64_t direction, int64_t first, int64_t last, int64_t part, bool add) {
        carried.clear();
        for (int64_t b = first; b < last; ++b) {
            carried.push_back({Block(s, sequence, direction, b), std::vector<Lanes>(s.rank)});
        }
        for (int64_t number = chunks(s) - 1; number >= 0; --number) {
            chunk.read(s, sequence, direction, number * CHUNK);
            for (Carried &c : carried) {
                const bool add_projections = &c != &carried.front();
                in.read(s, chunk, c.block);
                for (int t = 0; t < chunk.steps; ++t)
                    dy[t] = load(values(grads.dy) + chunk.places[t] * row_size(s) + c.block.column, c.block.lanes);
                c.block.growth ? recompute<true>(c.block, number, part, add_projections)
                               : recompute<false>(c.block, number, part, add_projections);
                adjoint(c, part, add_projections, add);
            }
        }
        for (const Carried &c : carried) finish(c, sequence);
    }

    // The row of projections of step t, of their gradient.
    float *projections(int64_t part, int t) const {
        const int64_t row = (part * s.directions + chunk.direction) * s.batch * s.length + chunk.places[t];
        return grads.projections + row * (s.rank + 2 * s.states);
    }

    // States and decays of the chunk, and the gradient of C.
    template <bool growth>
    void recompute(const Block &block, int64_t number, int64_t part, bool add_projections) {
        Lanes h[STATES];
        const Lanes *saved = reinterpret_cast<const Lanes *>(grads.saved_states) + block.saved + number * STATES;
        std::copy(saved, saved + STATES, h);
        for (int t = 0; t < chunk.steps; ++t) {
            const Lanes delta = in.delta[t], du = in.du[t], out = dy[t];
            write_sums(projections(part, t) + s.rank + s.states, add_projections, [&](auto state) INLINE_LAMBDA {
                constexpr int n = state;
                const Lanes decay = exp2_fast<growth>(delta * block.rate[n]);
                states[t][n] = h[n];
                decays[t][n] = decay;
                h[n] = decay * h[n] + du * chunk.B[t][n];
                return out * h[n];
            });
        }
    }

    void adjoint(Carried &c, int64_t part, bool add_projections, bool add_u) {
        const Block &block = c.block;
        const int64_t row = row_size(s), half = s.rank ? chunk.direction % 2 * s.batch * s.length : 0;
        Lanes g[STATES];
        std::copy(c.g, c.g + STATES, g);
        for (int t = chunk.steps - 1; t >= 0; --t) {
            const Lanes out = dy[t], delta = in.delta[t], du = in.du[t], u = in.u[t];
            Lanes gB{}, pull{};  // pull: sum of g A exp(delta A) h_{t-1}, times log2(e)
            float *f = projections(part, t);
            write_sums(f + s.rank, add_projections, [&](auto state) INLINE_LAMBDA {
                constexpr int n = state;
                const Lanes full = g[n] + out * chunk.C[t][n];
                gB += full * chunk.B[t][n];
                g[n] = full * decays[t][n];
                const Lanes p = g[n] * states[t][n];
                pull += p * block.rate[n];
                c.dA[n] += p * delta;
                return full * du;
            });
            Lanes ddelta = u * gB + pull * (1.0f / LOG2E);
            if (s.softplus) ddelta *= sigmoid(in.raw[t]);
            c.dbias += ddelta;
            c.dD += out * u;

            float *to = grads.u + (half + chunk.places[t]) * row + block.column;
            Lanes total = delta * gB + block.skip * out;
            if (add_u) total += load(to, block.lanes);
            store(to, total, block.lanes);

            if (!s.rank) store(grads.step_sizes + chunk.places[t] * row + block.channel, ddelta, block.lanes);
            for (int r = 0; r < s.rank; r += QUAD) {
                const Lanes *weight = block.step_weight.data() + r;
                Lanes sums = complete_sums<QUAD>(partial_sums<0, QUAD>([&](auto i) { return ddelta * weight[i]; }));
                for (int i = 0; i < QUAD && r + i < s.rank; ++i) {
                    c.dweight[r + i] += ddelta * chunk.ranks[t * s.rank + r + i];
                    f[r + i] = (add_projections ? f[r + i] : 0.0f) + sums[i];
                }
            }
        }
        std::copy(g, g + STATES, c.g);
    }

    // to[n] = the sum over the lanes of f(n), or that much more, for all states n.
    template <int first = 0, typename F>
    INLINE void write_sums(float *to, bool add, F &&f) {
        if constexpr (first < STATES) {
            Lanes total = partial_sums<first, LANES>(f);
            const int count = static_cast<int>(std::clamp<int64_t>(s.states - first, 0, LANES));
            if (add) total += load(to + first, count);
            store(to + first, total, count);
            write_sums<first + LANES>(to, add, f);
        }
    }

    void finish(const Carried &c, int64_t sequence) {
        for (int lane = 0; lane < c.block.lanes; ++lane) {
            const int64_t channel = sequence * s.directions * s.channels + c.block.channel + lane;
            grads.D[channel] = c.dD[lane];
            grads.bias[channel] = c.dbias[lane];
            for (int n = 0; n < s.states; ++n) grads.A[channel * s.states + n] = c.dA[n][lane];
            for (int r = 0; r < s.rank; ++r) grads.step_weight[channel * s.rank + r] = c.dweight[r][lane];
        }
    }
};

}  // namespace

extern "C" {

int64_t selective_scan_abi() { return ABI; }

// Whether it was compiled with OpenMP, without which it uses one thread.
int64_t selective_scan_openmp() {
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}

// `saved_states` is (batch, directions, blocks of lanes, chunks, MAX_STATES, lanes).
int64_t selective_scan_lanes() { return LANES; }
int64_t selective_scan_chunk() { return CHUNK; }

// Both passes cut the channels of every sequence and group of directions into `parts` tasks, at most one per block of
// lanes: more of them keep more threads busy, fewer share more. A plain scan has a group per direction.

// Writes y and, unless null, `saved_states` for the backward pass. y is like u for the plain scan; for the cross-scan
// it is (groups, batch, length, channels), to be summed over groups.
void selective_scan_forward(const Scan *s, int64_t groups, int64_t parts, int64_t threads, float *y,
                            float *saved_states) {
    groups = s->rank ? groups : s->directions;
#pragma omp parallel num_threads(static_cast<int>(threads))
    {
        Forward forward(*s);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < s->batch * groups * parts; ++task) {
            const int64_t pair = task / parts, part = task % parts, group = pair % groups;
            float *to = y + (s->rank ? group * s->batch * s->length * s->channels : 0);
            for (int64_t k = group; k < s->directions; k += groups)
                forward.run(pair / groups, k, part * blocks(*s) / parts, (part + 1) * blocks(*s) / parts, k != group,
                            to, reinterpret_cast<Lanes *>(saved_states));
        }
    }
}

// Writes every gradient.
void selective_scan_backward(const Scan *s, const Gradients *grads, int64_t threads) {
    const int64_t groups = s->rank ? 2 : s->directions, parts = grads->parts;
#pragma omp parallel num_threads(static_cast<int>(threads))
    {
        Backward backward(*s, *grads);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < s->batch * groups * parts; ++task) {
            const int64_t pair = task / parts, part = task % parts, group = pair % groups;
            for (int64_t k = group; k < s->directions; k += groups)
                backward.run(pair / groups, k, part * blocks(*s) / parts, (part + 1) * blocks(*s) / parts, part,
                             k != group);
        }
    }
}

}  // extern "C"
