"""Measuring a detector's errors: what was drawn with known parameters is found again."""

import numpy as np
import pytest
import yaml
from commands_here import run_here

from lib.body.skeleton import FLIPPED
from lib.data.motion_files import read_motion_files
from lib.data.synthetic.body import Body
from lib.data.synthetic.sequences import Stage
from lib.data.synthetic.simulated_detector import PARAMETERS, SimulatedDetector
from tools.bench.detector.figure import simulate
from tools.bench.detector.fit import fit, swaps
from tools.bench.detector.tracks import Track, drawn_tracks, load_tracks, save_tracks


def people(count, frames, fps, seed):
    """Tracks of people who stand in the image, of whom nothing was found yet; joints are seen, hidden or outside."""
    rng = np.random.default_rng(seed)
    motion = read_motion_files(["data/accad17.npz"])["joints"]
    chosen = motion[rng.integers(0, len(motion), count)]
    truth = (chosen - chosen[:, :1])[:, None, :, ::2].repeat(frames, 1) * 200
    axes = np.zeros((frames, 17, 2, 3))
    axes[..., 0, 0] = axes[..., 1, 1] = 200.0
    return [
        Track(
            fps,
            np.ones((frames, 17, 3)),
            one,
            np.repeat(rng.choice(3, (1, 17), p=[0.6, 0.3, 0.1]), frames, 0),
            size,
            axes,
        )
        for one, size in zip(truth, np.sqrt(np.square(truth - truth.mean((1, 2), keepdims=True)).sum(-1).mean((1, 2))))
    ]


@pytest.fixture(scope="module")
def tracks():
    """Footage and drawn people as the simulated detector sees them."""
    return simulate(people(40, 100, 60.0, 0), PARAMETERS, 0), simulate(people(400, 10, 30.0, 1), PARAMETERS, 1)


def test_the_fit_finds_the_parameters_of_what_was_drawn(tracks):
    true, found = SimulatedDetector().parameters, fit(*tracks)
    for name, joint in true.joints.items():
        if not any(joint.error):
            continue
        for state in (0, 1):
            assert found["joints"][name]["error"][state] == pytest.approx(joint.error[state], rel=0.3)
            assert found["joints"][name]["spread"][state] == pytest.approx(joint.spread[state], abs=0.25)
            assert found["joints"][name]["outliers"][state] == pytest.approx(joint.outliers[state], abs=0.06)
        assert np.abs(found["joints"][name]["definition"]).max() < 0.02  # errors of nothing but chance
    assert found["correlation_time"] == pytest.approx(true.correlation_time, rel=0.35)
    for group in ("trunk", "limbs", "head"):
        np.testing.assert_allclose(found["parts"][group], getattr(true.parts, group), atol=0.15)
    assert found["common"] == pytest.approx(true.common, abs=0.15)
    middle = len(true.confidence.ranks) // 2
    for row in range(3):
        assert found["confidence"]["limbs"]["seen"][row][middle] == pytest.approx(
            true.confidence.limbs.seen[row][middle], abs=0.05
        )


def test_swapped_sides_are_seen():
    (track,) = people(1, 4, 30.0, 2)
    found = np.dstack([track.truth, np.ones((4, 17))])
    found[1] = found[1, list(FLIPPED)]
    found[2, [1, 2, 3, 4, 5, 6]] = found[2, [4, 5, 6, 1, 2, 3]]
    swapped = swaps(Track(30.0, found, track.truth, track.visible, track.size, track.axes))
    assert swapped["all"].tolist() == [False, True, False, False]
    assert swapped["legs"].tolist() == [False, False, True, False] and not swapped["arms"].any()


def test_drawn_people_are_found_where_they_are():
    motion = read_motion_files(["data/accad17.npz"])
    stage = Stage(Body(), motion["joints"], motion["start"], [])
    found = list(drawn_tracks("fast", stage, 3, 2, seed=20))
    errors = np.concatenate([np.linalg.norm(t.found[..., :2] - t.truth, axis=-1) / t.size for t in found])
    assert np.isfinite(errors).any() and np.nanmedian(errors) < 0.3


def run(*arguments):
    return run_here("tools.measure_detector", *arguments)


@pytest.mark.weekly
def test_the_command_writes_parameters_and_a_figure(tracks, tmp_path):
    for name, some in zip(("footage.npz", "drawn.npz"), tracks):
        save_tracks(tmp_path / name, some)
    assert np.array_equal(load_tracks(tmp_path / "drawn.npz")[3].truth, tracks[1][3].truth)
    done = run("--tracks", tmp_path, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "wrist" in done.stdout and (tmp_path / "out" / "errors.png").stat().st_size > 10_000
    SimulatedDetector(tmp_path / "out" / "detector.yaml")
    assert yaml.safe_load((tmp_path / "out" / "detector.yaml").read_text())["joints"]["left knee"]["error"][0] > 0


def test_wrong_tracks_are_refused(tmp_path):
    done = run("--tracks", tmp_path, "--out", tmp_path)
    assert done.returncode == 2 and "footage.npz: no such file" in done.stderr
    (tmp_path / "footage.npz").write_bytes(b"nothing")
    done = run("--tracks", tmp_path, "--out", tmp_path)
    assert done.returncode == 2 and "; measure the tracks again" in done.stderr and "Traceback" not in done.stderr
