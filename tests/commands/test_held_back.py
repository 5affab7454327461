"""Subjects that are held back: never trained on, and lifted by the benchmark."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from lib.config import load_config
from lib.data.datasets import open_dataset
from lib.data.motion_files import FPS, read_motion_files
from lib.errors import UserError
from lib.video.lift.placement import roots
from tools.bench.scoring.held_back import clips, errors

DATA = ROOT / "data"
CONFIG = ROOT / "configs" / "pose3d" / "PoseMamba_wild.yaml"


@pytest.fixture(scope="module")
def motion():
    return read_motion_files([DATA / "cmu17_large.npz", DATA / "accad17.npz"])


def test_files_are_joined_at_60_frames_a_second(motion):
    with np.load(DATA / "accad17.npz") as accad, np.load(DATA / "cmu17_large.npz") as cmu:
        own = (accad["root"][:, None] + accad["joints"].astype(np.float32)) * 1e-4
        first, names, length = len(cmu["joints"]), len(cmu["name"]), int(accad["start"][1])
        assert float(accad["fps"]) == 30.0 and FPS == 60.0
        assert len(motion["name"]) == names + len(accad["name"]) == len(motion["start"]) - 1
    joined = motion["joints"][first : motion["start"][names + 1]]
    assert len(joined) == 2 * length - 1
    np.testing.assert_allclose(joined[::2], own[:length], atol=1e-6)
    np.testing.assert_allclose(joined[1::2], (own[: length - 1] + own[1:length]) / 2, atol=1e-6)


def test_no_training_clip_is_of_a_held_back_subject(motion):
    config = load_config(CONFIG, [f"dt_root={DATA}"])
    reader = open_dataset(config)
    clip = np.searchsorted(motion["start"], reader.intervals[:, 0].numpy(), side="right") - 1
    assert config.held_back and not set(motion["subject"][clip]) & set(config.held_back)
    assert "test" not in set(motion["split"][clip])
    scored = set(reader.array("test", "source"))
    assert scored & set(motion["name"][np.isin(motion["subject"], config.held_back)])


def test_an_unknown_subject_is_named():
    with pytest.raises(UserError, match="held_back: 'nobody' is no subject of .*accad_male1"):
        open_dataset(load_config(CONFIG, [f"dt_root={DATA}", "held_back=[nobody]"]))


def test_the_truth_is_where_perfect_keypoints_are():
    found = clips([DATA / "accad17.npz"], ["accad_male1"])
    for clip in found[::10]:
        keypoints = clip.keypoints["perfect"]
        place = roots(clip.truth, keypoints, *clip.size, clip.focal)
        points = clip.truth + place[:, None]
        seen = points[..., :2] / points[..., 2:] * clip.focal + np.array(clip.size) / 2
        np.testing.assert_allclose(seen, keypoints[..., :2], atol=0.1)
        assert errors(clip, 1.7 * clip.truth).max() < 1e-2
        assert errors(clip, clip.truth * [1, 1, -1]).mean() > 20  # a mirror image is not the same pose


@pytest.mark.weekly
def test_the_benchmark_writes_its_figures(tmp_path):
    out = tmp_path / "lifter.json"
    command = [sys.executable, ROOT / "tools/bench/lifter.py", "--subjects", "49", "--stride", "4", "--out", out]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    figures = json.loads(out.read_text())
    assert 15 < figures["p_mpjpe_mm"]["49"]["perfect"] < figures["p_mpjpe_mm"]["all"]["noisy"] < 120
    assert figures["frames_per_second"] > 0 and "49" in result.stdout
    for arguments, message in ((["--subjects", "nobody"], "nobody"), (["--stride", "0"], "--stride")):
        result = subprocess.run([*map(str, command), *arguments], capture_output=True, text=True, cwd=tmp_path)
        assert result.returncode == 2 and message in result.stderr.splitlines()[-1]
