"""The data sets of 2D pre-training, by the names of `subset_list_2d`."""

from pathlib import Path
from typing import NamedTuple

from torch.utils.data import Dataset

from lib.data.datasets import instavariety, posetrack


class Clips2D(NamedTuple):
    """detected: whether positions are a detector's; else a person's, which `noise` may be added to."""

    clips: Dataset
    origin: str
    detected: bool


def _posetrack18(config):
    folder = Path(config.data_root_2d) / "posetrack18_annotations" / "train"
    clips = posetrack.PoseTrackClips(folder, min(posetrack.FRAMES, config.maxlen))
    return Clips2D(clips, f"{len(clips)} clips in {folder}", detected=False)


def _instavariety(config):
    folder = Path(config.data_root_2d) / "InstaVariety"
    frames = min(instavariety.FRAMES, config.maxlen)
    stride = max(1, frames * instavariety.STRIDE // instavariety.FRAMES)
    clips = instavariety.InstaVarietyClips(folder, frames, stride)
    return Clips2D(clips, f"{len(clips)} clips cut from {folder}", detected=True)


SETS_2D = {"PoseTrack18": _posetrack18, "InstaVariety": _instavariety}  # in the published order
