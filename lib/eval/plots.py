"""Charts of a run: loss curves, errors per action, predicted against true skeletons."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from lib.body.skeleton import LEFT, LIMBS, RIGHT, ROOT
from lib.files import atomic_path

CROPS = 18  # that `keypoints` is given

_LEFT, _RIGHT, _MIDDLE, _TRUE = "#d1495b", "#2b6cb0", "#333333", "#b8b8b8"


def loss_curves(history, path, scored, unit):
    """Draw loss terms and test scores over epochs.

    Args:
        history: a list of {name: value} with "epoch".
        scored, unit: {name of a score: label}, and their unit.
    """
    figure, (losses, errors) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    epochs = [entry["epoch"] for entry in history]
    for name in sorted({n for entry in history for n in entry if n.startswith("train/")}):
        values = [entry.get(name, np.nan) for entry in history]
        losses.plot(epochs, values, marker=".", label=name.removeprefix("train/"))
    losses.set(yscale="log", xlabel="epoch", title="training loss and its terms (unweighted)")
    losses.legend(fontsize=8)
    for name, label in scored.items():
        if any(f"test/{name}" in entry for entry in history):
            errors.plot(epochs, [entry.get(f"test/{name}", np.nan) for entry in history], marker=".", label=label)
            errors.legend()
    errors.set(xlabel="epoch", ylabel=unit, title="test split", ylim=(0, None))
    for axes in (losses, errors):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    save(figure, path)


def per_action(scores, baselines, path):
    """Draw bars of P1 and P2 for each action, with P1 of the linear regression and the mean pose as marks."""
    actions = list(scores.per_action)
    x = np.arange(len(actions))
    figure, axes = plt.subplots(figsize=(max(8, 2 + 0.9 * len(actions)), 4.5), layout="constrained")
    axes.bar(x - 0.2, [scores.per_action[a].mpjpe for a in actions], 0.4, label="P1 (MPJPE)")
    axes.bar(x + 0.2, [scores.per_action[a].p_mpjpe for a in actions], 0.4, label="P2 (P-MPJPE)")
    for name, other, marker in (
        ("linear, P1", baselines["linear"], "_"),
        ("mean pose, P1", baselines["mean_pose"], "x"),
    ):
        values = [other.per_action[a].mpjpe for a in actions]
        axes.scatter(x - 0.2, values, marker=marker, s=120, color="black", label=name, zorder=3)
    axes.set_xticks(x, actions, rotation=30, ha="right")
    axes.set(
        ylabel="mm",
        title=f"test error per {scores.group}: {scores.total}: P1 {scores.mpjpe:.1f}, P2 {scores.p_mpjpe:.1f} mm",
    )
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside right upper")
    save(figure, path)


def ablation(spreads, path, scored, unit):
    """Draw bars of scores, with their spread over seeds, and seconds of training.

    Args:
        spreads: {variation: {name of a score, or "seconds": (mean, standard deviation), or None}}.
        scored, unit: {name of a score: label}, and their unit.
    """
    scored = {key: label for key, label in scored.items() if any(found[key] for found in spreads.values())}
    y, height = np.arange(len(spreads)), 0.8 / len(scored)
    figure, axes = plt.subplots(figsize=(9, 1.6 + 0.7 * len(spreads)), layout="constrained")
    for number, (key, label) in enumerate(scored.items()):
        means, deviations = zip(*(found[key] or (np.nan, 0) for found in spreads.values()))
        places = y + height * (number - (len(scored) - 1) / 2)
        bars = axes.barh(places, means, height, xerr=deviations if any(deviations) else None, label=label)
        axes.bar_label(bars, fmt="%.1f" if unit == "mm" else "%.3f", padding=3, fontsize=8)
    axes.set_yticks(y, [f"{name}\n{found['seconds'][0]:,.0f} s" for name, found in spreads.items()])
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set(xlabel=unit, title="test scores of the best epoch, and seconds of training")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside right upper")
    save(figure, path)


def compared_curves(histories, path, scored, unit):
    """Draw training loss and the first score of several trainings, over epochs and over time: means, and all seeds.

    Args:
        histories: {name: histories, one a seed, as of `loss_curves`}.
        scored, unit: as of `loss_curves`.
    """
    score, label = next(iter(scored.items()))
    figure, charts = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
    for number, (name, seeds) in enumerate(histories.items()):
        colour = f"C{number % 10}"
        length = min(map(len, seeds))
        epochs = np.arange(1, length + 1)
        loss, reached, seconds = (
            np.array([[entry.get(key, np.nan) for entry in history[:length]] for history in seeds])
            for key in ("train/loss", f"test/{score}", "seconds")
        )
        minutes = np.cumsum(seconds, axis=1) / 60
        for axes, x, y in zip(charts, (epochs, epochs, minutes.mean(0)), (loss, reached, reached)):
            axes.plot(x, y.mean(0), color=colour, marker=".", label=name)
            axes.fill_between(x, y.min(0), y.max(0), color=colour, alpha=0.2, linewidth=0)
    charts[0].set(xlabel="epoch", title="training loss")
    charts[1].set(xlabel="epoch", ylabel=unit, title=f"test split: {label}")
    charts[2].set(xlabel="minutes", ylabel=unit, title=f"test split: {label}")
    for axes in charts:
        axes.grid(alpha=0.3)
    for axes in charts[:2]:
        axes.xaxis.get_major_locator().set_params(integer=True)
    charts[0].legend(fontsize=8)
    save(figure, path)


def keypoints(images, found, joints, path):
    """Draw keypoints (n, J, 3), px and confidence, on images (n, H, W, 3); joints: their names."""
    columns = min(6, len(images))
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2 * columns, 2.6 * rows), layout="constrained", squeeze=False)
    colours = [_LEFT if "left" in name else _RIGHT if "right" in name else _MIDDLE for name in joints]
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, places in zip(axes.flat, images, found):
        ax.imshow(image)
        ax.scatter(places[:, 0], places[:, 1], s=14, c=colours, edgecolors="white", linewidths=0.5)
    save(figure, path)


def skeletons(predictions, reader, path, count=4):
    """Draw frames of the test split, evenly spread: detected 2D above, predicted 3D (colours) on true 3D (grey) below.

    predictions (clips, F, 17, 3), normalised; lengths are drawn in units of half the image's width. Frames without a
    true pose, which a test set may have, are not drawn.
    """
    _, clips = reader.get_split_id()
    for place in sorted(range(clips.shape[1]), key=lambda place: abs(place - clips.shape[1] // 2)):
        posed = np.flatnonzero(np.isfinite(reader.read_3d("test", clips[:, place])).all((1, 2)))
        if len(posed):
            break
    chosen = posed[np.linspace(0, len(posed) - 1, 2 * count + 1).astype(int)[1::2]]
    rows = clips[chosen, place]
    keypoints, targets = reader.read_2d("test", rows), reader.read_3d("test", rows)
    names = zip(reader.array("test", "source", rows), reader.array("test", "action", rows))
    figure = plt.figure(figsize=(3.2 * count, 6.6), layout="constrained")
    for column, (clip, (source, action)) in enumerate(zip(chosen, names)):
        flat = figure.add_subplot(2, count, column + 1)
        _draw(flat, keypoints[column, :, :2])
        flat.set(aspect="equal", xticks=[], yticks=[])
        flat.invert_yaxis()
        flat.set_title(f"{source}\n{action}", fontsize=8)
        solid = figure.add_subplot(2, count, count + column + 1, projection="3d")
        true, predicted = (pose - pose[ROOT] for pose in (targets[column], predictions[clip, place]))
        _draw(solid, _upright(true), color=_TRUE, linewidth=4)
        _draw(solid, _upright(predicted))
        reach = 1.05 * max(np.abs(true).max(), np.abs(predicted).max())
        solid.set(xlim=(-reach, reach), ylim=(-reach, reach), zlim=(-reach, reach))
        solid.set_box_aspect((1, 1, 1), zoom=1.35)
        solid.view_init(elev=12, azim=-60)
        solid.tick_params(labelbottom=False, labelleft=False, labelright=False)
    figure.suptitle("detected 2D; predicted 3D (red left, blue right) on true 3D (grey)", fontsize=10)
    save(figure, path)


def _upright(pose):
    """Return poses in plot axes (x right, y forward, z up) of those in camera axes (x right, y down, z forward)."""
    return np.stack([pose[:, 0], pose[:, 2], -pose[:, 1]], axis=-1)


def _draw(axes, joints, color=None, linewidth=2):
    for a, b in LIMBS:
        side = _LEFT if {a, b} & set(LEFT) else _RIGHT if {a, b} & set(RIGHT) else _MIDDLE
        axes.plot(*joints[[a, b]].T, color=color or side, linewidth=linewidth, solid_capstyle="round")


def save(figure, path, dpi=110):
    """Write a figure as the kind of picture that the name says, whole or not at all, and close it."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi, format=Path(path).suffix.removeprefix("."))
    plt.close(figure)
