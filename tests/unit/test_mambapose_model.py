"""MambaPose: shapes, sizes, its blocks against slow references, recomputation, cues, time, and errors by name."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from conftest import relative_error
from selective_scan.reference import selective_scan_loop

from lib.config import load_config
from lib.errors import UserError
from lib.model import MambaPose, open_model, recompute
from lib.model.facts import macs_of, parameters_of
from lib.model.mambapose import fusion
from lib.model.mambapose.block import Block, GridScan, rank_of
from lib.model.mambapose.fusion import GatedFusion
from lib.model.mambapose.heads import HeatmapHead, _under
from lib.model.mambapose.sizes import ENCODERS, FUSIONS, HEADS, SIZES, STREAM_SETS
from lib.model.mambapose.stem import ConvStem
from lib.model.mambapose.vim import SequenceScan
from lib.model.registry import build_model, model_of

VITPOSE = {"small": 24.29e6, "base": 89.99e6}  # transformers' ViTPose-S and -B with the classic decoder


def images(batch=2, height=64, width=48, streams="rgb+flow+depth"):
    generator = torch.Generator().manual_seed(1)
    channels = {"rgb": 3, "flow": 2, "depth": 1}
    return {s: torch.rand(batch, channels[s], height, width, generator=generator) for s in streams.split("+")}


def network(size="nano", seed=0, **options):
    torch.manual_seed(seed)
    return MambaPose(size, **options)


def gradients(model, inputs, seed=2):
    """Return the output and the gradients {name: tensor} of a training step."""
    model.zero_grad()
    torch.manual_seed(seed)
    y = model(**inputs)
    (y * torch.linspace(-1, 1, y.numel()).cos().view(y.shape)).sum().backward()
    return {"y": y, **{name: p.grad for name, p in model.named_parameters()}}


def assert_same(found, expected, tolerance=1e-5):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert relative_error(found[name], value) < tolerance, name


# ---- Shapes and sizes ----


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("size", ["nano", "tiny"])
@torch.no_grad()
def test_shapes(size, encoder):
    inputs = images()
    for fused in FUSIONS:
        assert network(size, encoder=encoder, fusion=fused)(**inputs).shape == (2, 17, 16, 12)
    model = network(size, encoder=encoder, head="3d", joints=5)
    assert model(**inputs).shape == (2, 5, 3)
    heatmaps, pose = model.estimate(**inputs)
    assert heatmaps.shape == (2, 5, 16, 12) and pose.shape == (2, 5, 3)


@torch.no_grad()
def test_any_size_that_16_divides():
    for encoder in ENCODERS:
        model = network(encoder=encoder, streams=("rgb",)).eval()
        for height, width in [(16, 16), (48, 112), (256, 192), (272, 192)]:
            assert model(torch.rand(1, 3, height, width)).shape == (1, 17, height // 4, width // 4)


@pytest.mark.parametrize("size, expected", VITPOSE.items())
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("streams", [("rgb",), ("rgb", "flow", "depth")])
def test_as_many_parameters_as_vitpose(size, expected, encoder, streams):
    with torch.device("meta"):
        found = parameters_of(MambaPose(size, streams=streams, encoder=encoder))
    assert abs(found / expected - 1) < 0.05


@pytest.mark.parametrize("size", SIZES)
def test_both_encoders_of_a_size_are_alike(size):
    with torch.device("meta"):
        two_stage, vim = (parameters_of(MambaPose(size, streams=("rgb",), encoder=encoder)) for encoder in ENCODERS)
    assert abs(vim / two_stage - 1) < 0.08


def test_the_kernels_take_every_size():
    for size in SIZES.values():
        for channels in (*size.channels, size.vim[0]):
            assert rank_of(channels) <= 32
            assert rank_of(channels) == min(32, -(-channels // 16))
    assert GridScan(16).A_logs.shape == (64, 16)


# ---- Blocks against what they are defined as, step by step ----


def scanned(sequence, layer, k):
    """One direction of a layer over (L, D), by the loop over time."""
    rank = layer.dt_projs_weight.shape[2]
    channels = sequence.shape[1]
    ranks, B, C = (sequence @ layer.x_proj_weight[k].T).split([rank, 16, 16], dim=1)
    steps = ranks @ layer.dt_projs_weight[k].T
    own = slice(k * channels, (k + 1) * channels)
    A, D = -layer.A_logs[own].exp(), layer.Ds[own]
    arguments = (sequence.T[None], steps.T[None], A, B.T[None, None], C.T[None, None], D, layer.dt_projs_bias[k], True)
    return selective_scan_loop(*arguments)[0].T


def obvious_block(block, x):
    """A `Block` on one sample (H, W, C): rows, columns, rows reversed, columns reversed, by lists of places."""
    height, width, channels = x.shape
    scan = block.scan
    u = F.layer_norm(x, (channels,), block.norm.weight, block.norm.bias) @ scan.in_proj.weight.T
    padded = F.pad(u, (0, 0, 1, 1, 1, 1))
    convolved = torch.zeros_like(u) + scan.conv.bias
    for row in range(3):
        for column in range(3):
            convolved += padded[row : row + height, column : column + width] * scan.conv.weight[:, 0, row, column]
    u = convolved * torch.sigmoid(convolved)
    rows = [(i, j) for i in range(height) for j in range(width)]
    columns = [(i, j) for j in range(width) for i in range(height)]
    y = torch.zeros_like(u)
    for k, places in enumerate([rows, columns, rows[::-1], columns[::-1]]):
        found = scanned(torch.stack([u[place] for place in places]), scan, k)
        for place, value in zip(places, found):
            y[place] += value
    x = x + F.layer_norm(y, (channels,), scan.norm.weight, scan.norm.bias) @ scan.out_proj.weight.T
    hidden = F.gelu(block.mlp.fc1(F.layer_norm(x, (channels,), block.norm2.weight, block.norm2.bias)))
    return x + block.mlp.fc2(hidden)


@torch.no_grad()
def test_a_block_is_what_it_is_defined_as():
    torch.manual_seed(0)
    block = Block(24).eval()
    for parameter in block.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    x = torch.randn(2, 5, 3, 24)
    expected = torch.stack([obvious_block(block.double(), sample) for sample in x.double()])
    assert relative_error(block.float()(x), expected) < 1e-5


@torch.no_grad()
def test_a_vision_mamba_layer_is_what_it_is_defined_as():
    torch.manual_seed(0)
    layer, x = SequenceScan(16, depth=4).double(), torch.randn(1, 9, 16).double()
    u, gate = (x[0] @ layer.in_proj.weight.T).split(32, dim=1)
    total = 0
    for k in range(2):
        sequence = F.pad(u.flip(0) if k else u, (0, 0, 3, 0))
        weight, bias = (t[32 * k : 32 * (k + 1)] for t in (layer.conv.weight[:, 0], layer.conv.bias))
        y = scanned(F.silu(sum(sequence[i : i + 9] * weight[:, i] for i in range(4)) + bias), layer, k)
        total = total + (y.flip(0) if k else y)
    expected = (total / 2 * F.silu(gate)) @ layer.out_proj.weight.T
    assert relative_error(layer.float()(x.float())[0], expected) < 1e-5


@torch.no_grad()
def test_heatmap_cells_lie_below_their_token():
    head, features = HeatmapHead((8, 12), joints=3), [torch.zeros(1, 8, 6, 8), torch.zeros(1, 4, 3, 12)]
    empty = head(features)
    for number, stride in enumerate((2, 4)):  # in cells
        changed = [f.clone() for f in features]
        changed[number][0, 1, 2] = 1
        differs = (head(changed) != empty).any(1)[0].nonzero()
        assert differs.amin(0).tolist() == [stride, 2 * stride]
        assert differs.amax(0).tolist() == [2 * stride - 1, 3 * stride - 1]


@torch.no_grad()
def test_the_head_takes_features_of_any_backbone():
    assert HeatmapHead((384,), joints=17)([torch.zeros(2, 16, 12, 384)]).shape == (2, 17, 64, 48)


@torch.no_grad()
def test_features_under_a_heatmap():
    features = torch.arange(12.0).view(1, 3, 4, 1)
    share = torch.zeros(1, 2, 12, 16)
    share[0, 0, 5, 9] = 1  # token (1, 2)
    share[0, 1, 11, 15] = share[0, 1, 0, 0] = 0.5  # tokens (2, 3) and (0, 0)
    assert _under(share, features)[0, :, 0].tolist() == [6.0, 5.5]


# ---- Recomputation ----


@pytest.mark.parametrize(
    "options",
    [{}, {"fusion": "early"}, {"encoder": "vim"}, {"head": "3d"}, {"frames": 2}],
    ids=lambda options: "-".join(map(str, options.values())) or "default",
)
@pytest.mark.parametrize("numbers", [2**20, 500])  # all at once; slices of samples, of tokens and of a stem's layers
def test_recomputed_gradients_are_those_of_kept_activations(options, numbers, monkeypatch):
    monkeypatch.setitem(recompute.SLICE, "cpu", numbers)
    inputs = images(batch=4, height=32, width=32)
    recomputed, kept = (
        gradients(network(recompute=r, drop_path=0.3, **options).train(), inputs) for r in (True, False)
    )
    assert_same(recomputed, kept)


def kept_numbers(model, size=64):
    """Return how many numbers autograd keeps for the backward pass of a network that sees RGB."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            seen[storage.data_ptr()] = (tensor, storage.nbytes() // 4)  # the tensor too, or its place is used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        y = model(torch.rand(2, 3, size, size))
    assert y.requires_grad
    return sum(numbers for _, numbers in seen.values())


def test_recomputation_keeps_less():
    recomputed, kept = (kept_numbers(network(streams=("rgb",), recompute=r)) for r in (True, False))
    assert recomputed < 0.25 * kept


# ---- Cues ----


def test_a_missing_cue_is_a_hidden_one():
    model, inputs = network().train(), images(batch=3)
    every, hidden = torch.ones(3, 2), torch.tensor([[1.0, 0], [0, 1], [0, 0]])
    with torch.no_grad():
        found = model.fusion(**inputs, shown=hidden)
        full, none = model.fusion(**inputs, shown=every), model.fusion(inputs["rgb"])
        without_depth = model.fusion(inputs["rgb"], inputs["flow"])
        without_flow = model.fusion(inputs["rgb"], depth=inputs["depth"])
    for sample, expected in enumerate((without_depth, without_flow, none)):
        torch.testing.assert_close(found[sample], expected[sample])
        assert relative_error(full[sample], expected[sample]) > 1e-3


@torch.no_grad()
def test_the_3d_head_sees_no_depth_that_is_hidden(monkeypatch):
    model, inputs = network(head="3d", streams=("rgb", "depth")).train(), images(streams="rgb+depth")
    missing = model.estimate(inputs["rgb"])[1]
    for shown, same in [(0.0, True), (1.0, False)]:
        monkeypatch.setattr(model.fusion, "draw_cues", lambda batch, shown=shown: torch.full((batch, 2), shown))
        assert torch.allclose(model(**inputs), missing, atol=1e-5) == same


def test_cues_are_hidden_in_training_only():
    model = network()
    drawn = torch.cat([model.train().fusion.draw_cues(1000) for _ in range(4)])
    assert ((drawn.mean(0) - 0.7).abs() < 0.03).all()
    assert model.eval().fusion.draw_cues(1000) is None
    inputs = images()
    with torch.no_grad():
        assert torch.equal(model(**inputs), model(**inputs))


@torch.no_grad()
def test_cues_come_in_through_gates_that_are_nearly_shut():
    gated = GatedFusion(ConvStem, 48, ("rgb", "flow"), recompute=False)
    torch.testing.assert_close(
        torch.sigmoid(gated.cues["flow"].gate.bias), torch.full((48,), 0.1192), atol=1e-4, rtol=0
    )


@torch.no_grad()
def test_flow_counts_in_heights_of_the_image():
    flow = torch.zeros(1, 2, 64, 48)
    flow[:, 0], flow[:, 1] = 3.2, -2.4
    values = fusion.prepared("flow", flow)[0, :, 0, 0]
    torch.testing.assert_close(values, torch.tensor([3.2, -2.4, 4.0]) / 64)


# ---- Time ----


@torch.no_grad()
def test_frames_are_mixed_both_ways_and_clips_are_not():
    model = network(streams=("rgb",), frames=3).eval()
    rgb = images(batch=6, streams="rgb")["rgb"]
    before = model(rgb)
    for changed in range(3):
        other = rgb.clone()
        other[changed] = 1 - other[changed]
        differs = (model(other) - before).flatten(1).norm(dim=1)
        assert (differs[:3] > 1e-4).all() and not differs[3:].any()
    alone = network(streams=("rgb",)).eval()
    other = rgb.clone()
    other[1] = 0
    assert (alone(other) != alone(rgb)).flatten(1).any(1).tolist() == [False, True, False, False, False, False]


# ---- A citizen of PyTorch ----


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("head", HEADS)
def test_autocast(encoder, head):
    model, inputs = network(encoder=encoder, head=head, drop_path=0.2).eval(), images()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = model(**inputs)
    assert relative_error(found, model(**inputs)) < 0.03
    with torch.autocast("cpu", torch.bfloat16):
        model.train()(**inputs).float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("encoder", ENCODERS)
def test_torch_export(encoder):
    model, inputs = network(encoder=encoder, head="3d").eval(), images()
    program = torch.export.export(model, (), inputs)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(**inputs), model(**inputs))


# ---- Errors ----


@pytest.mark.parametrize(
    "options, message",
    [
        ({"size": "huge"}, "size: 'huge' is unknown; there are nano, tiny, small, base"),
        ({"head": "4d"}, "head: '4d' is unknown"),
        ({"encoder": "vit"}, "encoder: 'vit' is unknown (did you mean 'vim'?)"),
        ({"fusion": "late"}, "fusion: 'late' is unknown"),
        ({"streams": ("rgb", "dept")}, "streams: 'dept' is unknown (did you mean 'depth'?)"),
        ({"streams": ("flow",)}, "streams: lacks rgb"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(UserError) as refused:
        MambaPose(**{"size": "nano"} | options)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    "options, change, message",
    [
        (
            {},
            {"rgb": torch.zeros(2, 3, 64, 50)},
            "rgb: 50 x 64 px (width x height): both have to be multiples of 16 px",
        ),
        ({}, {"rgb": torch.zeros(3, 64, 48)}, "rgb: expected (B, 3, H, W), got (3, 64, 48)"),
        ({}, {"rgb": torch.zeros(2, 4, 64, 48)}, "rgb: expected (2, 3, 64, 48)"),
        ({}, {"flow": torch.zeros(2, 2, 32, 48)}, "flow: expected (2, 2, 64, 48), as large as rgb, got (2, 2, 32, 48)"),
        ({"streams": ("rgb", "flow")}, {}, "depth: the network sees rgb, flow only; leave it out"),
        ({"fusion": "early"}, {"flow": None}, "flow: is missing, which fusion: early cannot do without"),
        ({"frames": 3}, {}, "rgb: 2 images are no whole clips of 3 frames"),
    ],
)
def test_wrong_inputs_are_named(options, change, message):
    inputs = images()
    inputs |= {stream: None for stream in inputs if "rgb" in change}
    with pytest.raises(UserError) as refused:
        network(**options)(**inputs | change)
    assert str(refused.value).startswith(message)


# ---- The registry ----


@pytest.mark.parametrize("streams", STREAM_SETS)
@pytest.mark.parametrize("options", [[], ["fusion=early"], ["encoder=vim", "head=3d"], ["size=tiny", "frames=3"]])
def test_a_file_tells_its_config(streams, options, tmp_path):
    overrides = ["backbone=MambaPose", "size=nano", f"streams={streams}", *options]
    config = load_config(overrides=overrides)
    model = build_model(config).eval()
    told = model_of("MambaPose").config_of(model.state_dict())
    assert told == {key: getattr(config, key) for key in told}
    assert ("frames" in told) == (config.frames == 1)  # shapes do not tell of how many frames a clip is

    torch.save({"model_pos": model.state_dict(), "config": config.model_dump()}, tmp_path / "best_epoch.bin")
    opened = open_model(tmp_path / "best_epoch.bin")
    assert opened.config.model_dump() == config.model_dump()
    inputs = [None if x is None else torch.rand_like(x) for x in model_of("MambaPose").example(config)]
    with torch.no_grad():
        assert torch.equal(opened.model(*inputs), model(*inputs))


def test_parameters_of_other_models_are_refused(tmp_path):
    posemamba = build_model(load_config(overrides=["depth=1"])).state_dict()
    torch.save({"model_pos": posemamba}, tmp_path / "posemamba.bin")
    with pytest.raises(UserError, match="posemamba.bin: is not a MambaPose checkpoint"):
        open_model(tmp_path / "posemamba.bin", overrides=["backbone=MambaPose"])
    torch.save({"model_pos": network().state_dict()}, tmp_path / "mambapose.bin")
    with pytest.raises(
        UserError, match="mambapose.bin: is not a PoseMamba checkpoint .*; it is one of backbone: MambaPose"
    ):
        open_model(tmp_path / "mambapose.bin", overrides=["backbone=PoseMamba"])


def test_multiply_accumulates_of_a_block():
    """By hand, for one token and C = 16: three Linear layers of 11 C^2 in all, a convolution, four scans."""
    layers, scans = macs_of(Block(16, recompute=False).eval(), [torch.zeros(1, 4, 3, 16)])
    assert layers == 12 * (2 * 16 * 16 + 2 * 4 * 16 * 16 + 9 * 16)
    assert scans == 12 * 4 * 16 * ((1 + 32) + 1 + 3 * 16 + 1)


def test_reading_configs_loads_no_pytorch():
    program = "import lib.model, lib.config, sys; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"
