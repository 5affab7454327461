"""PoseTrack18's annotations as 2D clips for pre-training.

One JSON file per video, {"annotations": [{"track_id", "keypoints": 17 x (x, y, visibility), ...}], "categories", ...}. As
in MotionBERT's released trainer, a track gives one clip, its first annotated frames, if it has that many, more than 60 %
of its joints are visible and the pelvis is in every frame; the box around all its visible joints is scaled to [-1, 1].
Unlike there, thorax and spine follow the rules of `lib.body.layouts`, as at inference.
"""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from lib.body.layouts import LAYOUTS, to_h36m
from lib.body.skeleton import ROOT
from lib.data.datasets.base import Clips2D
from lib.errors import UserError, describe

LAYOUT = "posetrack17"
KEYPOINTS = tuple(  # by the names of the files
    {"upper neck": "head_bottom"}.get(joint, joint.replace(" ", "_")) for joint in LAYOUTS[LAYOUT]
)
FRAMES = 30  # of a clip, as published
SEEN_SHARE = 0.6  # of a clip's keypoints: 306 of 30 x 17
_LEAST_SEEN = 4  # keypoints of a clip, for a box around them


class PoseTrackClips(Dataset):
    """Clips of a folder of annotation files, in memory (2,000 clips take 12 MB).

    Args:
        folder: of .json files, such as posetrack18_annotations/train.
        frames: of a clip.

    Raises:
        UserError: no such folder, no files, no clip in them; or a file is not in this layout (names annotation and key).
    """

    def __init__(self, folder, frames=FRAMES):
        folder = Path(folder)
        files = sorted(folder.glob("*.json"))
        if not files:
            raise UserError(
                f"{folder}: holds no PoseTrack18 annotations (*.json); put them there or set data_root_2d, or leave "
                "PoseTrack18 out of subset_list_2d"
            )
        clips = [
            clip for file in files for track in read_tracks(file) if (clip := track_clip(track, frames)) is not None
        ]
        if not clips:
            raise UserError(
                f"{folder}: no track has {frames} frames with enough visible joints; "
                "set a lower maxlen, or leave PoseTrack18 out of subset_list_2d"
            )
        self.clips = torch.from_numpy(np.stack(clips))

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, indices):
        """Return clips (B, F, 17, 3) by a list of numbers: x, y and confidence, as keypoints and as pose."""
        clips = self.clips[indices]
        return {"keypoints": clips, "pose": clips}


def open_clips(config):
    """Return the `Clips2D` of a config."""
    folder = Path(config.data_root_2d) / "posetrack18_annotations" / "train"
    clips = PoseTrackClips(folder, min(FRAMES, config.maxlen))
    return Clips2D(clips, f"{len(clips)} clips in {folder}", detected=False)


def read_tracks(path):
    """Return the keypoints (n, 17, 3) of each person of a file: x, y in px and visibility 0 or 1, in the order `KEYPOINTS`.

    Raises:
        UserError: the file is not JSON or not in this layout; names the annotation and key.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: is truncated or not JSON ({describe(error)}); copy it again") from error
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        raise UserError(f"{path}: lacks the list 'annotations'; it is not a PoseTrack18 annotation file")
    order = _order(path, content.get("categories"))
    tracks = defaultdict(list)
    for number, annotation in enumerate(content["annotations"]):
        place = f"{path}: annotation {number}"
        for key in ("track_id", "keypoints"):
            if not isinstance(annotation, dict) or key not in annotation:
                raise UserError(f"{place}: lacks {key!r}")
        try:
            keypoints = np.array(annotation["keypoints"], np.float64)
            track = int(annotation["track_id"])
        except (ValueError, TypeError, OverflowError) as error:
            raise UserError(f"{place}: 'keypoints' or 'track_id' are not numbers ({describe(error)})") from error
        if keypoints.shape != (3 * len(KEYPOINTS),):
            raise UserError(f"{place}: 'keypoints' has shape {keypoints.shape}, expected {(3 * len(KEYPOINTS),)}")
        if not np.isfinite(keypoints).all():
            raise UserError(f"{place}: 'keypoints' is not finite")
        tracks[track].append(keypoints.reshape(-1, 3)[order])
    found = [np.stack(frames) for frames in tracks.values()]
    for person in found:
        person[..., 2] = person[..., 2] > 0
    return found


def track_clip(track, frames):
    """Return the clip (frames, 17, 3) float32 of a track (n, 17, 3), joints in Human3.6M's order; None if it gives none.

    A joint that is not seen is 0 in all three channels.
    """
    track = track[:frames]
    if len(track) < frames or track[..., 2].sum() <= SEEN_SHARE * frames * len(KEYPOINTS):
        return None
    points = track[track[..., 2] > 0][:, :2]
    low, high = points.min(0), points.max(0)
    size = (high - low).max()
    if len(points) < _LEAST_SEEN or not size:
        return None
    scaled = ((track[..., :2] - (low + high) / 2) / size * 2).clip(-1, 1)
    clip = to_h36m(np.concatenate([scaled, track[..., 2:]], axis=-1), LAYOUT)
    clip[clip[..., 2] == 0] = 0
    return clip if clip[:, ROOT, 2].all() else None


def _order(path, categories):
    """Return the index of each of `KEYPOINTS` in the file's own list of names, or their own where it has no such list."""
    try:
        names = categories[0]["keypoints"]
    except (TypeError, KeyError, IndexError):
        return list(range(len(KEYPOINTS)))
    if not isinstance(names, list):
        raise UserError(f"{path}: categories: 'keypoints' is {names!r}, expected a list of names")
    missing = [name for name in KEYPOINTS if name not in names]
    if len(names) != len(KEYPOINTS) or missing:
        what = f"lacks {missing[0]!r}" if missing else f"has {len(names)} names"
        raise UserError(f"{path}: categories: 'keypoints' {what}; expected PoseTrack18's {', '.join(KEYPOINTS)}")
    return [names.index(name) for name in KEYPOINTS]
