"""Figure of a detector's errors as measured and as simulated by lib/data/synthetic/simulated_detector.py."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch

from lib.body.skeleton import FLIPPED, JOINTS
from lib.data.synthetic.detector_parameters import GROUPS, STATES
from lib.data.synthetic.simulated_detector import MEASURED, SimulatedDetector
from lib.eval.plots import save
from tools.bench.detector.fit import FOOTAGE, LAGS, OWN, definitions, pieces, pool, sample, structure

_QUANTILES = (0.5, 0.9, 0.97)
_BINS = np.linspace(0, 1, 21)
_COLOURS = {"measured": "#1f5fa8", "simulated": "#d9822b"}
_SHOWN = [joint for joint in OWN if joint <= FLIPPED[joint]]  # of left and right, which count as one


def simulate(tracks, parameters, seed):
    """Return `Track`s of one length in which the simulated detector sees what the detector saw."""
    truth = np.stack([track.truth for track in tracks])
    middle = np.nan_to_num(np.nanmean(truth, axis=(1, 2), keepdims=True))
    places = np.where(np.isfinite(truth), truth, middle)
    state = np.stack([track.visible for track in tracks])
    seconds = np.array([1 / track.fps for track in tracks])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = SimulatedDetector(parameters).err(
            torch.from_numpy(places).float(),
            torch.from_numpy(state).long(),
            torch.tensor([track.size for track in tracks]).float(),
            torch.from_numpy(seconds).float(),
            torch.full((len(tracks),), MEASURED),
        )
    found = torch.where(found[..., 2:] > 0, found, torch.nan).double().numpy()
    return [replace(track, found=np.where(np.isfinite(track.found), one, np.nan)) for track, one in zip(tracks, found)]


def compared(footage, drawn, parameters):
    """Return {"measured", "simulated": `Sample`} of the same people and frames."""
    offsets, cut = definitions(drawn), pieces(footage)
    none = np.zeros_like(offsets)
    simulated = [sample(simulate(cut, parameters, seed), none) for seed in range(FOOTAGE)]
    return {
        "measured": pool(*[sample(cut, offsets)] * FOOTAGE, sample(drawn, offsets)),
        "simulated": pool(*simulated, sample(simulate(drawn, parameters, FOOTAGE), none)),
    }


def save_figure(path, samples):
    """Draw what `compared` returned and write it as PNG."""
    figure, axes = plt.subplots(3, 3, figsize=(18, 13), constrained_layout=True)
    for axis, state in zip(axes[0], range(3)):
        _errors(axis, samples, state)
    for axis, group in zip(axes[1], GROUPS):
        _confidence(axis, samples, group)
    _changes(axes[2, 0], samples)
    _structure(axes[2, 1], samples)
    _relation(axes[2, 2], samples)
    save(figure, path, dpi=80)


def _lengths(sampled):
    return np.linalg.norm(sampled.errors, axis=-1)


def _errors(axis, samples, state):
    for shift, (name, sampled) in zip((-0.15, 0.15), samples.items()):
        of = [_of(_lengths(sampled), sampled.state == state, joint) for joint in _SHOWN]
        _quantiles(axis, name, shift, of)
    axis.set_title(f"error, {STATES[state]}: median, 90 %, 97 %")
    axis.set_ylabel("in units of the person's size")


def _changes(axis, samples):
    for shift, (name, sampled) in zip((-0.15, 0.15), samples.items()):
        change = np.linalg.norm(np.diff(sampled.errors, axis=1), axis=-1)
        seen = (sampled.state[:, 1:] == 0) & (sampled.state[:, :-1] == 0)
        _quantiles(axis, name, shift, [_of(change, seen, joint) for joint in _SHOWN])
    axis.set_title("seen: change of the error from frame to frame")


def _quantiles(axis, name, shift, values):
    for marker, quantile in zip("o^s", _QUANTILES):
        height = [np.quantile(one, quantile) if len(one) > 20 else np.nan for one in values]
        label = name if marker == "o" else None
        axis.plot(np.arange(len(values)) + shift, height, marker, color=_COLOURS[name], label=label)
    axis.set_yscale("log")
    axis.set_xticks(range(len(values)), [JOINTS[joint].replace("right ", "") for joint in _SHOWN], rotation=30)
    axis.legend()


def _of(values, chosen, joint):
    """Return values (P, F, 17) of a joint and the one on the other side that are chosen and known."""
    sides = sorted({joint, FLIPPED[joint]})
    found = values[..., sides][chosen[..., sides]]
    return found[np.isfinite(found)]


def _confidence(axis, samples, group):
    members = list(GROUPS[group])
    for style, state in zip(("-", "--", ":"), range(3)):
        for name, sampled in samples.items():
            chosen = (sampled.state[..., members] == state) & np.isfinite(_lengths(sampled)[..., members])
            values = sampled.confidence[..., members][chosen]
            if len(values) > 20:
                share = np.histogram(values, _BINS)[0] / len(values)
                label = f"{name}, {STATES[state]}"
                axis.stairs(share, _BINS, color=_COLOURS[name], linestyle=style, label=label)
    axis.set_yscale("log")
    axis.set_title(f"confidence, {group}")
    axis.legend()


def _structure(axis, samples):
    for name, sampled in samples.items():
        lags = [lag for lag in LAGS if lag < sampled.errors.shape[1]]
        for style, (group, members) in zip(("-", "--", ":"), GROUPS.items()):
            changes = structure(sampled, members, lags)
            seconds = np.array(lags) / sampled.fps
            axis.plot(seconds, changes, style, marker="o", color=_COLOURS[name], label=f"{name}, {group}")
    axis.set_title("seen: median change of the error in time, in units of its median")
    axis.set_xlabel("s")
    axis.legend()


def _relation(axis, samples):
    edges = np.geomspace(0.01, 1.5, 13)
    for name, sampled in samples.items():
        for style, state in zip(("-", "--"), range(2)):
            members = list(GROUPS["limbs"])
            length, confidence = _lengths(sampled)[..., members], sampled.confidence[..., members]
            chosen = sampled.state[..., members] == state
            middle = [
                np.median(values)
                if len(values := confidence[chosen & (length >= low) & (length < high)]) > 20
                else np.nan
                for low, high in zip(edges, edges[1:])
            ]
            label = f"{name}, {STATES[state]}"
            axis.plot(np.sqrt(edges[1:] * edges[:-1]), middle, style, marker="o", color=_COLOURS[name], label=label)
    axis.set_xscale("log")
    axis.set_title("limbs: median confidence by error")
    axis.legend()
