// The cross-scan registered with PyTorch from C++, for programs without Python: the operator that exported models call.
// Inference on the CPU; the scan itself is ../selective_scan/csrc/scan_cpu.cpp, as for Python.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <numeric>
#include <tuple>

#include "../selective_scan/csrc/scan.h"

extern "C" {
int64_t selective_scan_lanes();
int64_t selective_scan_forward(const Scan *, int64_t groups, int64_t parts, int64_t threads, float *y, float *states);
}

namespace {

// As Direction.encode and Direction.path of directions.py.
ScanPath path_of(int64_t direction, int64_t frames, int64_t joints) {
    const bool joint_major = direction & 1, outer_backwards = direction & 2, inner_backwards = direction & 4;
    const int64_t outer = joint_major ? joints : frames;
    ScanPath path{0, joint_major ? frames : joints, joint_major ? 1 : joints, joint_major ? joints : 1};
    if (outer_backwards) {
        path.start += (outer - 1) * path.outer_step;
        path.outer_step = -path.outer_step;
    }
    if (inner_backwards) {
        path.start += (path.inner - 1) * path.inner_step;
        path.inner_step = -path.inner_step;
    }
    return path;
}

at::Tensor plain(const at::Tensor &tensor) { return tensor.to(at::kFloat).contiguous(); }

std::tuple<at::Tensor, at::Tensor> cross_scan(
    const at::Tensor &u, const at::Tensor &x_proj_weight, const at::Tensor &dt_projs_weight,
    const at::Tensor &dt_projs_bias, const at::Tensor &A, const at::Tensor &D, at::IntArrayRef directions,
    at::IntArrayRef limb_partners, bool, c10::string_view, bool keep) {
    TORCH_CHECK(!keep, "selective_scan: in C++ there is inference only, no gradient");
    TORCH_CHECK(
        u.dim() == 4 && directions.size() <= MAX_PATHS && A.size(1) <= MAX_STATES &&
            (limb_partners.empty() || int64_t(limb_partners.size()) == u.size(2)),
        "selective_scan: u is ", u.sizes(), ", expected (batch, frames, joints, channels)");
    const int64_t batch = u.size(0), frames = u.size(1), joints = u.size(2), channels = u.size(3);
    const int64_t count = directions.size(), rank = dt_projs_weight.size(2);
    const auto activations = plain(u), weight = plain(x_proj_weight), steps = plain(dt_projs_weight);
    const auto bias = plain(dt_projs_bias), decays = plain(A), skip = plain(D);
    const auto projections = at::mm(activations.view({-1, channels}), weight.flatten(0, 1).t());
    std::vector<int32_t> partners(limb_partners.begin(), limb_partners.end());

    Scan scan{};
    scan.u = activations.const_data_ptr();
    scan.projections = projections.const_data_ptr();
    scan.step_weight = steps.const_data_ptr<float>();
    scan.bias = bias.const_data_ptr<float>();
    scan.A = decays.const_data_ptr<float>();
    scan.D = skip.const_data_ptr<float>();
    scan.partners = partners.empty() ? nullptr : partners.data();
    scan.batch = batch, scan.length = frames * joints, scan.directions = count, scan.channels = channels;
    scan.states = A.size(1), scan.rank = rank, scan.joints = partners.size(), scan.softplus = 1;
    for (int64_t k = 0; k < count; ++k) {
        scan.paths[k] = path_of(directions[k], frames, joints);
        scan.limbs[k] = directions[k] >> 3 & 1;
    }

    // Tasks for all threads: parts of the channels, and halves of the directions where those are too few (cpu.py).
    const int64_t threads = at::get_num_threads(), lanes = selective_scan_lanes();
    const auto parts_of = [&](int64_t groups) {
        const int64_t others = std::max<int64_t>(1, batch * groups);
        return std::clamp<int64_t>((threads + others - 1) / others, 1, (channels + lanes - 1) / lanes);
    };
    const int64_t groups = parts_of(1) * batch < threads ? std::min<int64_t>(2, count) : 1;
    const auto y = at::empty({groups, batch, frames, joints, channels}, activations.options());
    selective_scan_forward(&scan, groups, parts_of(groups), threads, y.mutable_data_ptr<float>(), nullptr);
    return {(groups > 1 ? y.sum(0) : y[0]).to(u.dtype()), at::empty({0}, activations.options())};
}

TORCH_LIBRARY(selective_scan, library) {
    library.def(
        "cross_scan(Tensor u, Tensor x_proj_weight, Tensor dt_projs_weight, Tensor dt_projs_bias, Tensor A, Tensor D, "
        "SymInt[] directions, SymInt[] limb_partners, bool exact_limbs, str implementation, bool keep) "
        "-> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(selective_scan, CPU, library) { library.impl("cross_scan", cross_scan); }

}  // namespace
