"""Write a file in Human3.6M's preprocessed layout and size with random poses, for measurements only.

python tools/make_fake_h36m.py            # 1,559,752 + 566,920 frames, about 1.4 GB
"""

import pickle
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lib.threads import spin_briefly

spin_briefly()  # before PyTorch is loaded

from lib.cli import Parser, positive_number, progress_bar, run
from lib.data.datasets.h36m import CAMERA_SIZES
from lib.errors import UserError
from lib.files import atomic_path

FRAMES = {"train": 1_559_752, "test": 566_920}
SUBJECTS = {"train": (1, 5, 6, 7, 8), "test": (9, 11)}
ACTIONS = (
    "Directions", "Discussion", "Eating", "Greeting", "Phoning", "Photo", "Posing", "Purchases",
    "Sitting", "SittingDown", "Smoking", "Waiting", "WalkDog", "Walking", "WalkTogether",
)  # fmt: skip
SMOOTHING = 25  # frames


def sources(split, frames):
    """Return (source, action, camera, length) of every recording: each subject does each action twice per camera."""
    names = [
        (f"s_{subject:02d}_act_{action + 2:02d}_subact_{take:02d}_ca_{camera + 1:02d}", ACTIONS[action], name)
        for subject in SUBJECTS[split]
        for action in range(len(ACTIONS))
        for take in (1, 2)
        for camera, name in enumerate(CAMERA_SIZES)
    ]
    lengths = np.full(len(names), frames // len(names))
    lengths[: frames % len(names)] += 1
    return [(*name, length) for name, length in zip(names, lengths)]


def recording(rng, camera, length):
    """Return the layout's per-frame arrays of smooth random motion in the middle of the image."""
    noise = rng.standard_normal((length + SMOOTHING, 17, 3), np.float32).cumsum(0)
    motion = (noise[SMOOTHING:] - noise[:-SMOOTHING]) * 8
    pose = (rng.uniform(-1, 1, (17, 3)) * (150, 300, 150)).astype(np.float32)
    image = motion + pose + (CAMERA_SIZES[camera][0] / 2, CAMERA_SIZES[camera][1] / 2, 0)
    factor = rng.uniform(3.5, 5.5) + 0.1 * motion[:, 0, 2] / 100
    image = image.astype(np.float32)
    return {
        "joint_2d": image[..., :2] + rng.standard_normal((length, 17, 2), np.float32) * 5,
        "confidence": rng.uniform(0.5, 1, (length, 17)).astype(np.float32),
        "joint3d_image": image,
        "joints_2.5d_image": (image * factor[:, None, None]).astype(np.float32),
        "2.5d_factor": factor.astype(np.float64),
    }


def make_split(rng, split, frames):
    entries = sources(split, frames)
    recordings = [recording(rng, camera, n) for _, _, camera, n in progress_bar(entries, split, unit="source")]
    arrays = {key: np.concatenate([r.pop(key) for r in recordings]) for key in list(recordings[0])}
    for i, key in enumerate(("source", "action", "camera_name")):
        arrays[key] = np.repeat([entry[i] for entry in entries], [entry[3] for entry in entries])
    return arrays


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="data/motion3d/fake_h36m.pkl", help="default: %(default)s")
    parser.add_argument("--share", type=positive_number, default=1.0, help="of the full size (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse()
    if options.seed < 0 or int(min(FRAMES.values()) * options.share) < 1:
        raise UserError("--seed: at least 0; --share: enough for a frame")
    if Path(options.out).is_dir():
        raise UserError(f"--out: {options.out!r} is a folder; give the file to write")
    rng = np.random.default_rng(options.seed)
    dataset = {split: make_split(rng, split, int(frames * options.share)) for split, frames in FRAMES.items()}
    with atomic_path(options.out) as temporary, open(temporary, "wb") as handle:
        pickle.dump(dataset, handle, protocol=4)
    print(f"{options.out}: written, {Path(options.out).stat().st_size / 1e9:.2f} GB")


if __name__ == "__main__":
    run(main, when_memory_ends="lower --share")
