// What a scan is, for the CPU and the CUDA library alike; native.py mirrors these structures.
//
// Activations are channel-last: a row of channels per position. There are two forms:
//
// - the plain scan (rank == 0): every direction (a group of channels, in the words of Mamba) has channels, step sizes
//   and outputs of its own, side by side in a row, and reads positions 0, 1, 2, ...;
// - the cross-scan (rank > 0): all directions read the same channels, each in the order of its scan path, compute
//   their step sizes from `rank` projections, and their outputs are summed.
//
// For a direction with limbs, the channels and projections of a position are summed with those of its limb partner.

#pragma once

#include <cstdint>

constexpr int MAX_STATES = 16;
constexpr int MAX_PATHS = 4;

// The position of step t is start + (t / inner) * outer_step + (t % inner) * inner_step.
struct ScanPath {
    int64_t start, inner, outer_step, inner_step;
};

// All arrays contiguous; `u`, `step_sizes` and `projections` of the type that the call names, the rest float32.
struct Scan {
    const void *u;             // (batch, length, row())
    const void *step_sizes;    // (batch, length, directions * channels), or null where rank > 0
    const void *projections;   // (batch, length, directions, rank + 2 * states): ranks, B, C
    const float *step_weight;  // (directions, channels, rank), or null where rank == 0
    const float *bias;         // (directions, channels), or null
    const float *A;            // (directions, channels, states)
    const float *D;            // (directions, channels), or null
    const int32_t *partners;   // (joints,), or null without limbs; position p is of joint p % joints
    int64_t batch, length, directions, channels, states, rank, joints, softplus;
    ScanPath paths[MAX_PATHS];  // per direction, of the cross-scan only
    int64_t limbs[MAX_PATHS];
};

// What the backward pass reads and writes. Gradients are float32.
struct Gradients {
    const void *dy;  // like y, of the type of u
    const float *saved_states;
    float *u;            // plain: like u; cross: (2, batch, length, channels), the sums over k % 2
    float *step_sizes;   // like step_sizes, or null
    float *projections;  // (parts, directions, batch, length, rank + 2 * states), to be summed over parts
    float *step_weight;  // (pieces, *step_weight.shape), to be summed like the following; or null
    float *bias, *A, *D;
    int64_t parts;
};

// What Python expects to talk to: changes with these structures and with any function's arguments.
constexpr int64_t ABI = 1000000 * 1 + 1000 * sizeof(Scan) + sizeof(Gradients);
