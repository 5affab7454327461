"""Random training clips in the published layout of files."""

import pickle
import subprocess
import sys

import numpy as np

from lib.files import PROJECT
from tools.bench.shared.sizes import JOINTS


def write_clips(folder, count, frames):
    """Write random training clips into a folder, and a small data set, which has to be there too.

    Returns:
        {config key: value} of a training on them.
    """
    rng = np.random.default_rng(0)
    clips = folder / "clips" / "H36M-SH" / "train"
    clips.mkdir(parents=True)
    for number in range(count):
        pose = rng.uniform(-1, 1, (frames, JOINTS, 3)).astype(np.float32)
        (clips / f"{number:08d}.pkl").write_bytes(pickle.dumps({"data_input": pose, "data_label": pose}))
    make = [sys.executable, PROJECT / "tools/make_fake_h36m.py", "--out", folder / "fake.pkl", "--share", "0.01"]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    return {
        "data_root": str(folder / "clips"),
        "dt_root": str(folder),
        "dt_file": "fake.pkl",
        "maxlen": frames,
        "clip_len": frames,
    }
