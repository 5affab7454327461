"""Writer and table of the measured parameters of a detector."""

import numpy as np
import yaml

from lib.body.skeleton import FLIPPED, JOINTS
from lib.files import atomic_path
from tools.bench.shared.report import table as lines_of

_HEAD = """\
# Errors of the detector `{detector}` as `python tools/measure_detector.py` measured them, and lib/data/synthetic/simulated_detector.py
# draws them. Written by that tool: change it rather than this file.
# Measured on {what}.
#
# Errors are in units of the person's size: the root mean square distance of all joints from their centre.
#   correlation_time  s; the correlation of the lasting part of errors is exp(-time / correlation_time)
#   parts             of errors of joints of each group (lib/data/synthetic/detector_parameters.py) that are constant over a clip,
#                     lasting, and new in every frame; their squares sum to 1
#   common            share of the variance of log sizes from clip to clip that all joints of a clip have in common
#   outlier_size      std a coordinate of outliers, and its log-std
#   swaps             shares of clips of a third of a second in which left is taken for right for some frames: everywhere,
#                     in the legs alone, in the arms alone
#   confidence        quantiles, at `ranks`, of the reported confidence of errors up to the first of `edges`, up to the
#                     second, ..., beyond the last; by group; of joints that are seen, hidden, outside of the image
#     memory          correlation, from one frame to the next, of the rank of a joint's confidence among such joints
#   joints            all 17; left and right count as one; those without an error are means of others
#     definition      m, to the trunk's right, up and back: where the detector means the joint, on a standard body, against
#                     where the body turns
#     error           std a coordinate where the joint is seen, hidden, outside of the image
#     spread          log-std of it from clip to clip, likewise
#     outliers        shares of frames in which the joint is an outlier, likewise
"""


class _Dumper(yaml.SafeDumper):
    """YAML writer with lists of numbers on one line."""


_Dumper.add_representer(list, lambda dumper, items: dumper.represent_sequence(
    "tag:yaml.org,2002:seq", items, flow_style=not any(isinstance(item, list) for item in items)))  # fmt: skip


def write_parameters(path, parameters, detector, what):
    """Write the parameters of tools/bench/detector/fit.py; what: they were measured on, in words."""
    text = yaml.dump(_plain(parameters), Dumper=_Dumper, sort_keys=False, width=130)
    with atomic_path(path) as temporary:
        temporary.write_text(_HEAD.format(detector=detector, what=what) + text, encoding="utf-8")


def _plain(value):
    """Return numbers, lists and dicts of numbers of any kind, rounded to what means something."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    return float(f"{value:.3g}") if abs(value) >= 5e-4 else 0.0


def table(parameters):
    """Return lines: a joint a line, left and right as one."""
    rows = []
    for joint, name in enumerate(JOINTS):
        of = parameters["joints"][name]
        if joint <= FLIPPED[joint] and any(of["error"]):
            numbers = [*(1e3 * of["definition"]), *of["error"], *of["spread"], *of["outliers"]]
            rows.append([name.removeprefix("right ").removeprefix("left "), *(f"{n:.0f}" for n in numbers[:3])])
            rows[-1] += [f"{number:.3f}" for number in numbers[3:]]
    states = [f"{key} {state}" for key in ("error", "spread", "outlier") for state in ("seen", "hidden", "outside")]
    return lines_of(["", "right mm", "up mm", "back mm", *states], rows)
