"""CMU motion capture seen by synthetic cameras, in Human3.6M's preprocessed layout.

Real motion (data/cmu17_large.npz), synthetic cameras and synthetic detection errors:

Cameras. Human3.6M's image sizes and focal lengths (1145 to 1150 px, no distortion), one static camera per
view, aimed at the middle of the person's path. The least distance is the one from which every joint
stays within 450 px of the image's centre and is never nearer than 1.5 m. Test: four cameras around each
clip, 90 degrees apart, elevation 5 to 14 degrees, 1.25 times the least distance. Training: clips are cut
into segments of about 4 s, and each view of a segment has its own camera: any yaw, elevation 0 to 20
degrees, 1 to 1.6 times the least distance, aim off by up to 0.3 m, and the body scaled by 0.85 to 1.15.

Detections. Errors are in px for a person 400 px tall and scale with the person's size in the image.
The error of a joint is Gaussian with `JOINT_NOISE` px per coordinate; 70 % of its variance is correlated
in time (first-order autoregressive, 0.15 s), the rest is white. Outliers: once in 5 s on average, for
0.1 s on average, a Gaussian of 40 px per coordinate is added. Confidence falls with the error:
exp(-(error / 25 px)^2 / 2), times a uniform random factor of 0.8 to 1.
"""

import hashlib
import pickle
from pathlib import Path

import numpy as np

from lib.body.camera import orbit_rotation, project
from lib.body.skeleton import JOINTS, ROOT
from lib.data.datasets.h36m import CAMERA_SIZES
from lib.data.npz_files import read_npz
from lib.data.pickles import load_arrays
from lib.errors import UserError
from lib.files import atomic_path, require_file

VIEWS_FILE = "cmu17_virtual_cam_source.pkl"

FOCAL_LENGTHS = {"54138969": 1145.0, "55011271": 1149.7, "58860488": 1149.1, "60457274": 1145.5}  # px

HALF_IMAGE = 450.0  # px from the centre within which joints stay at the least distance
NEAREST = 1.5  # m

TEST_YAW = np.radians([45, 135, 225, 315])
TEST_ELEVATION = np.radians([5, 8, 11, 14])
TRAIN_ELEVATION = np.radians([0, 20])
TEST_DISTANCE = 1.25  # times the least distance
TRAIN_DISTANCE = (1.0, 1.6)
TRAIN_SEGMENT = 4.0  # s; each segment of a training clip has its own cameras
TRAIN_AIM = 0.3  # m
TRAIN_BODY_SIZE = (0.85, 1.15)

# px per coordinate for a person 400 px tall, in joint order: hands and feet are the least accurate.
JOINT_NOISE = np.array([3, 4, 4.5, 6, 4, 4.5, 6, 4, 3, 3, 4, 4, 5, 6.5, 4, 5, 6.5])
CORRELATED_VARIANCE = 0.7
CORRELATION_TIME = 0.15  # s
OUTLIERS_PER_SECOND = 0.2
OUTLIER_DURATION = 0.1  # s
OUTLIER_NOISE = 40.0  # px
CONFIDENCE_WIDTH = 25.0  # px
REFERENCE_HEIGHT = 400.0  # px
BODY_HEIGHT = 1.7  # m, of the person who is REFERENCE_HEIGHT tall in the image


def make_views(motion_file, target, train_views=3, seed=0, progress=lambda clips: clips):
    """Write the views of all clips of `motion_file` to `target`, unless it is there and up to date.

    Args:
        motion_file: the project's `cmu17_large.npz`.
        target: the pickle to write, atomically.
        train_views: random views of each segment of a training clip; a test clip has four fixed ones.
        seed: of every random draw.
        progress: wraps the list of clips, such as `tqdm`.

    Returns:
        Whether the file was written; False if the cached one is up to date.

    Raises:
        UserError: the motion file is missing, truncated or not of this layout; `target` cannot be written.
    """
    target = Path(target)
    provenance = {
        "code_sha256": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "train_views": train_views,
        "seed": seed,
        "motion_sha256": hashlib.sha256(require_file(motion_file).read_bytes()).hexdigest(),
    }
    if target.is_file() and _provenance(target) == provenance:
        return False
    motion = read_motion(motion_file)
    splits = {"train": [], "test": []}
    for index, name in progress(list(enumerate(motion["name"].tolist()))):
        split = str(motion["split"][index])
        frames = slice(motion["start"][index], motion["start"][index + 1])
        joints = (motion["root"][frames, None] + motion["joints"][frames].astype(float)) * 1e-4  # 0.1 mm -> m
        fps = float(motion["fps"])
        rng = np.random.default_rng((seed, index))
        segments, views = [joints], len(TEST_YAW)
        if split == "train":
            segments = np.array_split(joints, max(1, round(len(joints) / (TRAIN_SEGMENT * fps))))
            views = train_views
        for number, segment in enumerate(segments, 1):
            for view in range(views):
                seen = see(segment, split, view, fps, rng)
                seen["action"] = np.full(len(segment), str(motion["action"][index]))
                seen["source"] = np.full(len(segment), f"{name}_shot_{number:02d}_ca_{view + 1:02d}")
                splits[split].append(seen)
    dataset = {
        split: {key: np.concatenate([view[key] for view in views]) for key in views[0]}
        for split, views in splits.items()
    }
    with atomic_path(target) as temporary, open(temporary, "wb") as handle:
        pickle.dump(dataset | {"provenance": provenance}, handle, protocol=5)
    return True


def _provenance(target):
    try:
        return load_arrays(target).get("provenance")
    except UserError:
        return None  # damaged: it is written again


def read_motion(path):
    """Read a file of motion capture in the layout of data/README.md.

    Returns:
        {"root", "joints", "start", "name", "action", "split", "subject", "fps": array}.

    Raises:
        UserError: the file is missing, damaged or lacks an array.
    """
    keys = ("root", "joints", "start", "name", "action", "split", "subject", "fps")
    return read_npz(path, keys, f"; if it ships with the project, restore it with: git checkout -- {path}")


def see(joints, split, view, fps, rng):
    """Return the view of one camera of joints (n, 17, 3), m, z up: the arrays of the layout, one entry per frame.

    split: "test" for the fixed cameras of numbers `view`, "train" for random ones.
    """
    middle = (joints[:, ROOT].min(0) + joints[:, ROOT].max(0)) / 2
    if split == "test":
        camera = list(CAMERA_SIZES)[view]
        yaw, elevation, farther = TEST_YAW[view], TEST_ELEVATION[view], TEST_DISTANCE
        aim = middle
    else:
        camera = rng.choice(list(CAMERA_SIZES)).item()
        yaw = rng.uniform(0, 2 * np.pi)
        elevation = rng.uniform(*TRAIN_ELEVATION)
        farther = rng.uniform(*TRAIN_DISTANCE)
        size = rng.uniform(*TRAIN_BODY_SIZE)
        joints, middle = joints * size, middle * size
        aim = middle + rng.uniform(-TRAIN_AIM, TRAIN_AIM, 3)

    rotation = orbit_rotation(yaw, elevation)
    focal = FOCAL_LENGTHS[camera]
    points = (joints - aim) @ rotation.T  # x right, y down, z forward, from the aim
    points[..., 2] += farther * _least_distance(points, focal)

    width, height = CAMERA_SIZES[camera]
    pixels = project(points, focal, np.array([width, height]) / 2)
    root_depth = points[:, ROOT, 2]
    factor = 1e3 * root_depth / focal  # mm per px at the root
    depth = (points[..., 2] - root_depth[:, None]) * 1e3 / factor[:, None]
    image = np.concatenate([pixels, depth[..., None]], axis=-1)
    keypoints, confidence = _detect(pixels, focal * BODY_HEIGHT / root_depth, fps, rng)
    return {
        "joint_2d": keypoints.astype(np.float32),
        "confidence": confidence.astype(np.float32),
        "joint3d_image": image.astype(np.float32),
        "joints_2.5d_image": (image * factor[:, None, None]).astype(np.float32),
        "2.5d_factor": factor,
        "camera_name": np.full(len(joints), camera),
    }


def _least_distance(points, focal):
    """Return the least distance (m) at which all points (n, 17, 3) are in the image and at least `NEAREST` away."""
    to_the_side = np.abs(points[..., :2]).max(-1)
    return (np.maximum(to_the_side * focal / HALF_IMAGE, NEAREST) - points[..., 2]).max()


def _detect(pixels, person_height, fps, rng):
    """Return detections of true pixels (n, 17, 2) and their confidence (n, 17); person_height (n,) in px."""
    frames = len(pixels)
    memory = np.exp(-1 / (CORRELATION_TIME * fps))
    drift = rng.standard_normal(pixels.shape)
    for t in range(1, frames):
        drift[t] = memory * drift[t - 1] + np.sqrt(1 - memory**2) * drift[t]
    white = rng.standard_normal(pixels.shape)
    error = np.sqrt(CORRELATED_VARIANCE) * drift + np.sqrt(1 - CORRELATED_VARIANCE) * white
    error *= JOINT_NOISE[:, None]
    begins = rng.random((frames, len(JOINTS))) < OUTLIERS_PER_SECOND / fps
    for frame, joint in np.argwhere(begins):
        length = rng.geometric(1 / (OUTLIER_DURATION * fps))
        error[frame : frame + length, joint] += OUTLIER_NOISE * rng.standard_normal(2)
    size = np.linalg.norm(error, axis=-1)
    confidence = np.exp(-0.5 * (size / CONFIDENCE_WIDTH) ** 2) * rng.uniform(0.8, 1, size.shape)
    return pixels + error * (person_height / REFERENCE_HEIGHT)[:, None, None], confidence
