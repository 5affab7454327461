"""A few clips of the shipped motion in its own layout, so that a test takes no minutes."""

import numpy as np
from conftest import ROOT

MOTION = ROOT / "data" / "cmu17_large.npz"


def write(path, subjects=()):
    """Write four clips of training, two of testing, and one of each of these subjects; return the path."""
    with np.load(MOTION) as motion:
        arrays = {key: motion[key] for key in motion.files}
    chosen = np.r_[np.flatnonzero(arrays["split"] == "train")[:4], np.flatnonzero(arrays["split"] == "test")[:2]]
    chosen = np.union1d(chosen, [np.flatnonzero(arrays["subject"] == subject)[0] for subject in subjects]).astype(int)
    spans = [slice(*arrays["start"][i : i + 2]) for i in chosen]
    np.savez(
        path,
        root=np.concatenate([arrays["root"][s] for s in spans]),
        joints=np.concatenate([arrays["joints"][s] for s in spans]),
        start=np.cumsum([0] + [s.stop - s.start for s in spans]),
        fps=arrays["fps"],
        **{key: arrays[key][chosen] for key in ("name", "action", "split", "subject")},
    )
    return path
