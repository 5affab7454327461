"""Report of `tools/bench/memory.py`: ratios, goals, a table in Markdown and bar charts."""

from typing import NamedTuple

from tools.bench.shared.image_networks import NETWORKS, USUAL
from tools.bench.shared.peaks import Point

CHECKPOINTED = "vitpose-sdpa-checkpointed"
MEASURED = "mambapose"  # that goals are of
_STATE, _OURS, _THEIRS = "#b8b8b8", "#d1495b", "#2b6cb0"


class Goal(NamedTuple):
    """Largest ratio of MambaPose's peak in training to another's, on images of height x width px, from a batch on."""

    largest: float
    other: str
    image: tuple | None = None  # None: any
    batch: int = 1

    def __str__(self):
        where = f"at {self.image[0]} x {self.image[1]}" if self.image else "everywhere"
        return f"{NETWORKS[self.other].label}: at most {self.largest:g} {where} from batch {self.batch} on"


GOALS = (
    Goal(0.5, USUAL, (256, 192), 10),
    Goal(0.25, USUAL, (1024, 768), 6),
    Goal(0.15, "vitpose-eager", (1024, 768)),
    Goal(0.85, CHECKPOINTED),
)


def ratio(found, point, other):
    """Return a point's peak over that of another network; None if either is not known."""
    ours, theirs = (found.get(p, {}).get("peak_bytes") for p in (point, point._replace(network=other)))
    return ours / theirs if ours and theirs else None


def judged(found):
    """Return [{"goal", "size", "worst", "at", "held", "measured", "holds"}] of all goals and sizes with a figure.

    found: {Point: its figures}. worst: the largest ratio measured; held: at how many of the points measured.
    """
    judgements = []
    for size in dict.fromkeys(point.size for point in found):
        for goal in GOALS:
            ratios = {
                point: ratio(found, point, goal.other)
                for point in found
                if point[:3] == (size, MEASURED, "training")
                and point.batch >= goal.batch
                and goal.image in (None, (point.height, point.width))
            }
            known = {point: value for point, value in ratios.items() if value}
            if known:
                worst = max(known, key=lambda point: known[point])
                at = f"{worst.height} x {worst.width}, batch {worst.batch}"
                held = sum(value <= goal.largest for value in known.values())
                figures = {"worst": round(known[worst], 3), "at": at, "held": held, "measured": len(known)}
                figures["holds"] = held == len(known)
                judgements.append({"goal": str(goal), "size": size, **figures})
    return judgements


def table_of(found, size, doing):
    """Return lines of Markdown: peaks in MB of every network on every image and batch, and two ratios; seconds."""
    networks = [name for name in NETWORKS if any(p[:3] == (size, name, doing) for p in found)]
    lines = [
        f"| {size}, {doing} | batch | network | peak MB | of it state | x SDPA | x SDPA, checkpointed | s |",
        "|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    for height, width, batch in _images(found, size, doing):
        for name in networks:
            point = Point(size, name, doing, height, width, batch)
            if point in found:
                cells = [f"{height} x {width}", str(batch), NETWORKS[name].label, *_cells(found, point)]
                lines.append(f"| {' | '.join(cells)} |")
    return lines


def _cells(found, point):
    figures = found[point]
    if "missing" in figures:
        return [figures["missing"], "", "", "", ""]
    ratios = (ratio(found, point, other) for other in (USUAL, CHECKPOINTED))
    return [
        f"{figures['peak_bytes'] / 1e6:,.0f}",
        f"{figures['state_bytes'] / 1e6:,.0f}",
        *("" if r is None else f"{r:.2f}" for r in ratios),
        f"{min(figures['seconds']):.2f}" if "seconds" in figures else "",
    ]


def _images(found, size, doing):
    """Return (height, width, batch) of points, small images and batches first."""
    images = {point[3:] for point in found if (point.size, point.doing) == (size, doing)}
    return sorted(images, key=lambda image: (image[0] * image[1], image[2]))


def draw(path, title, found, size, doing):
    """Write a PNG: a panel for each image size and batch, a bar for each network, its state and what comes on top."""
    from matplotlib import pyplot as plt  # here: the processes that memory is measured in have no use for it
    from matplotlib.patches import Patch

    from lib.eval.plots import save

    images = _images(found, size, doing)
    names = [name for name in NETWORKS if any(p[:3] == (size, name, doing) for p in found)]
    columns = min(4, len(images))
    rows = -(-len(images) // columns)
    extent = (2.5 + 3.6 * columns, 1.2 + rows * (0.8 + 0.3 * len(names)))
    figure, axes = plt.subplots(rows, columns, figsize=extent, sharey=True, layout="constrained", squeeze=False)
    for ax, image in zip(axes.flat, images):
        _panel(ax, {name: Point(size, name, doing, *image) for name in names}, found)
        ax.set_title("{} x {} px, batch {}".format(*image), fontsize=9)
    for ax in axes.flat[len(images) :]:
        ax.axis("off")
    axes[0, 0].set_yticks(range(len(names)), [NETWORKS[name].label for name in names])
    for ax in axes[:, 0]:
        ax.tick_params(axis="y", labelsize=8)
    axes[0, 0].invert_yaxis()
    state = "weights" if doing == "inference" else "weights, gradients, AdamW's state"
    keys = {state: _STATE, "activations, MambaPose": _OURS, "activations, ViTPose": _THEIRS}
    patches = [Patch(color=colour, label=label) for label, colour in keys.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10)
    save(figure, path)


def _panel(ax, points, found):
    peaks = [found[p]["peak_bytes"] / 1e6 for p in points.values() if "peak_bytes" in found.get(p, {})]
    ax.set_xlim(0, 1.55 * max(peaks, default=1))
    for y, (name, point) in enumerate(points.items()):
        figures = found.get(point, {})
        if "peak_bytes" not in figures:
            ax.text(0, y, " " + ("does not fit" if figures else "not measured"), va="center", fontsize=7)
            continue
        peak, state = (figures[key] / 1e6 for key in ("peak_bytes", "state_bytes"))
        state = min(state, peak)
        ax.barh(y, state, 0.8, color=_STATE)
        ax.barh(y, peak - state, 0.8, left=state, color=_OURS if NETWORKS[name].ours else _THEIRS)
        of_usual = ratio(found, point, USUAL)
        text = f" {peak:,.0f}" + (f" ({of_usual:.2f}x)" if of_usual else "")
        ax.text(peak, y, text, va="center", fontsize=7)
    ax.xaxis.set_major_formatter("{x:,g}")
    ax.tick_params(axis="x", labelsize=7)
    ax.set_xlabel("MB", fontsize=7)
    ax.grid(axis="x", alpha=0.3)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
