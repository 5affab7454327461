"""A training step with each option of arithmetic and records, by the real trainer on the small Human3.6M file."""

import copy
import json
import logging
import pickle
import re

import numpy as np
import pytest
import torch
from conftest import PARITY, relative_error
from tiny_training import PLAIN, run, trained, training, weights
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from lib.engine.checkpoint import BEST, LATEST, WITHIN
from lib.engine.trainer import predict
from lib.errors import TrainingStopped
from lib.model.weights import read_checkpoint


class Operators(TorchDispatchMode):
    """The calls of operators whose names begin with a text: a list of (name, inputs, outputs)."""

    def __init__(self, beginning):
        super().__init__()
        self.beginning, self.calls = beginning, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **kwargs or {})
        if str(function).startswith(self.beginning):
            self.calls.append((str(function), args, found))
        return found


@pytest.mark.parametrize("amp, dtype, tolerance", [("bf16", torch.bfloat16, 0.2), ("fp16", torch.float16, 5e-2)])
def test_half_precision_computes_what_float32_does_and_scan_states_stay_float32(amp, dtype, tolerance, tmp_path):
    """tolerance: of gradients, whose velocities are differences of positions that are nearly the same."""
    keys = PLAIN | {"no_eval": False}
    reference = trained(tmp_path / "float32", **keys)
    reference.state.optimizer.zero_grad()
    (task,), (loader,) = reference.tasks, reference.loaders
    batch = next(iter(loader))
    with training(tmp_path / amp, **keys, amp=amp) as half:
        half.state.model.load_state_dict(reference.state.model.state_dict())
        with Operators("selective_scan.cross_scan") as scans:
            loss, _ = task.loss(half.model, batch)
            loss.backward()
        expected, _ = task.loss(reference.model, batch)
        expected.backward()
        assert loss.dtype == torch.float32 and relative_error(loss, expected) < 2e-2
        pairs = zip(half.state.model.parameters(), reference.state.model.parameters())
        gradients = [torch.cat([parameter.grad.flatten() for parameter in side]) for side in zip(*pairs)]
        assert relative_error(*gradients) < tolerance
        found = predict(half.state.model, task, half.runtime)
        assert relative_error(found, predict(reference.state.model, task, reference.runtime)) < 2e-2

    forward = [(inputs, outputs) for name, inputs, outputs in scans.calls if "backward" not in name]
    assert len(forward) == 4 and len(scans.calls) == 8
    for (u, _, _, bias, decay, *_), (y, states) in forward:
        assert u.dtype == y.dtype == dtype
        assert states.numel() and states.dtype == bias.dtype == decay.dtype == torch.float32


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_half_precision_trains(amp, tmp_path):
    losses = [entry["train/loss"] for entry in trained(tmp_path, amp=amp, epochs=4, depth=1).state.history]
    assert losses[-1] < 0.9 * losses[0]


def test_gradients_of_several_batches_make_the_step_of_one(tmp_path):
    """24 clips as batches of 10, 10 and 4: the last step has fewer clips in both."""
    together = trained(tmp_path / "one", batch_size=10, **PLAIN)
    apart = trained(tmp_path / "several", batch_size=2, accumulate=5, **PLAIN)
    assert (together.state.step, apart.state.step) == (3, 3) and len(apart.loaders[0]) == 12
    assert relative_error(weights(apart.state.model), weights(together.state.model)) < 1e-5
    losses = [trainer.state.history[-1]["train/loss"] for trainer in (together, apart)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def gradients_of_steps(folder, **keys):
    """The gradient that every step of AdamW used, one vector each: what its mean gradient has taken up."""
    found, means = [], [torch.tensor(0.0)]

    def look(optimizer, *arguments):
        means.append(torch.cat([state["exp_avg"].flatten() for state in optimizer.state.values()]))
        if not torch.equal(*means[-2:]):  # else fp16 has skipped the step, to go on with a lower scale
            found.append((means[-1] - 0.9 * means[-2]) / 0.1)

    with training(folder, **PLAIN, **keys) as trainer:
        trainer.state.optimizer.register_step_post_hook(look)
        run(trainer)
    return found


@pytest.mark.parametrize("amp", ["off", "fp16"])
def test_the_norm_of_a_steps_gradient_is_bounded(amp, tmp_path):
    """Of a step, not of its batches; under fp16, of the gradient itself, not of its scaled form."""
    keys = {"batch_size": 4, "accumulate": 2}
    free = gradients_of_steps(tmp_path / "free", **keys)
    bound = float(min(gradient.norm() for gradient in free)) / 4
    bounded = gradients_of_steps(tmp_path / "bounded", **keys, clip_grad=bound, amp=amp)
    assert len(free) == 3 and bounded
    assert [float(gradient.norm()) for gradient in bounded] == pytest.approx([bound] * len(bounded), rel=1e-3)
    if amp == "off":
        assert relative_error(bounded[0] / bound, free[0] / free[0].norm()) < 1e-4


def test_the_average_of_the_weights_is_what_is_scored_and_kept(tmp_path):
    seen, decay = [], 0.7
    with training(tmp_path, ema=decay, epochs=2, no_eval=False) as trainer:
        state = trainer.state
        state.optimizer.register_step_post_hook(lambda *arguments: seen.append(copy.deepcopy(state.model).state_dict()))
        history = run(trainer)
        average = seen[0]
        for step in seen[1:]:
            average = {name: decay * value + (1 - decay) * step[name] for name, value in average.items()}
        assert len(seen) == state.step == 6

        kept = read_checkpoint(tmp_path / LATEST)
        for name, value in average.items():
            assert relative_error(state.scored.state_dict()[name], value) < 1e-6, name
            assert torch.equal(kept.model[name], state.scored.state_dict()[name]), name
            assert torch.equal(kept.trained[name], seen[-1][name]), name
        scores = {}
        for name, parameters in {"average": average, "last": seen[-1]}.items():
            state.model.load_state_dict(parameters)
            scores[name] = trainer.tasks[0].score(predict(state.model, trainer.tasks[0], trainer.runtime)).mpjpe
    assert history[-1]["test/mpjpe"] == pytest.approx(scores["average"], rel=1e-5)
    assert scores["average"] != pytest.approx(scores["last"], rel=1e-3)
    best = min(history, key=lambda entry: entry["test/mpjpe"])
    assert read_checkpoint(tmp_path / BEST).epoch == best["epoch"]


@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("muon", marks=pytest.mark.skipif(
    not hasattr(torch.optim, "Muon"), reason="PyTorch has no Muon"))])  # fmt: skip
def test_adamw_is_one_operator_a_step(optimizer, tmp_path):
    with Operators("aten._fused_adamw_") as fused:
        trainer = trained(tmp_path, optimizer=optimizer)
    assert len(fused.calls) == trainer.state.step == 3
    stepped = sum(len(inputs[0]) for _, inputs, _ in fused.calls[:1])
    parts = getattr(trainer.state.optimizer, "parts", [trainer.state.optimizer])
    expected = {p for group in parts[-1].param_groups for p in group["params"]}
    assert stepped == len(expected) and (optimizer == "muon" or stepped == len(list(trainer.state.model.parameters())))


class Reads(TorchFunctionMode):
    """The steps at which a tensor's numbers are asked for: on a GPU, each a wait for all that it has to do."""

    def __init__(self, state):
        super().__init__()
        self.state, self.steps = state, []
        self._items = Operators("aten._local_scalar_dense")

    def __enter__(self):
        self._items.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._items.__exit__(*error)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        before = len(self._items.calls)
        found = function(*args, **kwargs or {})
        read = getattr(function, "__name__", "") in ("tolist", "numpy", "cpu", "item", "__bool__", "__float__")
        if read or len(self._items.calls) > before:
            self.steps.append(self.state.step)
        return found


@pytest.mark.parametrize("every, looks", [(1, [1, 2, 3, 4, 5, 6]), (4, [4, 6]), (100, [6])])
def test_losses_are_fetched_every_few_steps_and_nothing_else_is(every, looks, tmp_path):
    """The order of clips is read before the first step; the means of the epoch, and its checkpoint, after the last."""
    keys = {"batch_size": 2, "accumulate": 2, "clip_grad": 1.0, "warmup_steps": 2, "log_every": every}
    with training(tmp_path, **keys) as trainer:
        assert len(trainer.loaders[0]) == 12
        with Reads(trainer.state) as reads:
            run(trainer)
    assert sorted(set(reads.steps)) == [0, *looks]
    assert all(reads.steps.count(step) == 1 for step in looks[:-1])


BAD = 15  # the number of a clip


@pytest.fixture(scope="module")
def clips_with_a_bad_one(tmp_path_factory):
    """A folder of clips in the published layout, of which one has a pose that is not a number."""
    folder = tmp_path_factory.mktemp("clips") / "H36M-SH" / "train"
    folder.mkdir(parents=True)
    with np.load(PARITY / "h36m_expected.npz") as expected:
        for number, (x, y) in enumerate(zip(expected["train_input"], expected["train_label"])):
            content = {"data_input": x, "data_label": np.full_like(y, np.nan) if number == BAD else y}
            (folder / f"{number:08d}.pkl").write_bytes(pickle.dumps(content))
    return str(folder.parents[1])


@pytest.mark.parametrize("minutes", [0.0, 10.0])
def test_a_loss_that_is_not_a_number_stops_before_anything_is_saved(minutes, clips_with_a_bad_one, tmp_path):
    """The first such loss is named, however late anybody looks: it spoils the weights, and so all losses after it."""
    keys = {"data_root": clips_with_a_bad_one, "maxlen": 27, "clip_len": 27, "batch_size": 4, "log_every": 100}
    with training(tmp_path, **keys, checkpoint_minutes=minutes) as trainer:
        with pytest.raises(TrainingStopped) as stopped:
            run(trainer)
        batches = [batch["index"].tolist() for batch in trainer.loaders[0].epoch(trainer.state.position.seed)]
    number, clips = next((number, clips) for number, clips in enumerate(batches) if BAD in clips)
    assert 0 < number < len(batches) - 1 == 12, "the seed of the test is of no use"
    place = f"loss is nan at epoch 1, step {number + 1} of 13 (clips {', '.join(map(str, clips))}): nothing was saved"
    assert str(stopped.value).startswith(place)
    saved = [path.name for path in tmp_path.glob("*.bin")]
    assert saved == ([] if minutes else [WITHIN])
    if saved:
        good = read_checkpoint(tmp_path / WITHIN)
        assert good.state["step"] == number and all(value.isfinite().all() for value in good.model.values())


@pytest.mark.parametrize("minutes, place", [(0.0, "epoch 1, step 1 of 3"), (10.0, "epoch 1, step 3 of 3")])
def test_a_parameter_that_is_not_finite_stops_before_it_is_saved(minutes, place, tmp_path):
    """A loss shows it one step later at the earliest; the last step of an epoch, and one that is saved, have none."""
    keys = {"learning_rate": 1e39} if not minutes else {}  # beyond the largest float32
    with training(tmp_path, **keys, checkpoint_minutes=minutes) as trainer:
        if minutes:  # in the last step alone
            trainer.state.optimizer.register_step_pre_hook(
                lambda optimizer, *rest: raise_rate(optimizer, trainer.state)
            )
        with pytest.raises(TrainingStopped, match=f"^a parameter is not finite after {place}: nothing was saved over"):
            run(trainer)
    assert not list(tmp_path.glob("*.bin"))


def raise_rate(optimizer, state):
    """Make a step that leaves the range of float32 if it is the third."""
    for group in optimizer.param_groups:
        group["lr"] = 1e39 if state.step == 3 else group["lr"]


def test_a_profile_is_a_trace_and_the_ten_costliest_operators(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "lib.engine.profiler"):
        trained(tmp_path, profile=True, batch_size=3)
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    names = [event.get("name", "") for event in events]
    assert names.count("selective_scan::cross_scan") == 5 * 4, "5 steps of 4 scans"
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith(f"{tmp_path / 'trace.json'}: 5 steps; the ten costliest operators:")
    rules = [number for number, line in enumerate(message.splitlines()) if re.fullmatch(r"[- ]+", line)]
    rows = message.splitlines()[rules[1] + 1 : rules[2]]
    assert len(rows) == 10 and any("selective_scan::cross_scan" in row for row in rows)


def test_a_profile_is_made_only_if_it_is_wanted(tmp_path):
    trained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [LATEST]
