"""Errors that are drawn for training: that they are those of the parameters."""

import numpy as np
import pytest
import torch

from lib.body.layouts import MEANS
from lib.body.skeleton import JOINTS
from lib.data.synthetic.detector_parameters import GROUPS
from lib.data.synthetic.hiding import behind_body
from lib.data.synthetic.simulated_detector import BROAD, EXACT, KINDS, MEASURED, PARAMETERS, SimulatedDetector
from lib.errors import UserError

CLIPS, FRAMES = 3000, 9
OWN = [joint for joint in range(len(JOINTS)) if joint not in MEANS]
MEDIAN = np.sqrt(2 * np.log(2))  # of the length of a Gaussian vector in the plane


@pytest.fixture(scope="module")
def detector():
    return SimulatedDetector()


def draw(detector, state, kind=MEASURED, seed=0, step=1 / 30):
    """Errors (B, F, 17, 2) and confidence (B, F, 17) of people who stand still; frames without anybody are NaN."""
    torch.manual_seed(seed)
    places = torch.randn(1, 1, len(JOINTS), 2).expand(CLIPS, FRAMES, -1, -1)
    of_clips = torch.ones(CLIPS)
    state = torch.full(places.shape[:3], state)
    found = detector.err(places, state, of_clips, step * of_clips, kind * of_clips.long())
    there = found[..., 2].amax(-1) > 0
    found = torch.where(there[..., None, None], found, torch.nan).numpy()
    return found[..., :2] - places.numpy(), found[..., 2]


@pytest.mark.parametrize("state", [0, 1])
def test_sizes_are_those_of_the_parameters(detector, state):
    errors, _ = draw(detector, state)
    length = np.linalg.norm(errors, axis=-1)
    for joint in OWN:
        of = detector.parameters.joints[JOINTS[joint]]
        swapped = sum(detector.parameters.swaps.model_dump().values())
        outliers = of.outliers[state] + swapped / 4
        middle = np.nanquantile(length[..., joint], 0.5 * (1 - outliers))  # of those that are not outliers, about
        np.testing.assert_allclose(middle, MEDIAN * of.error[state], rtol=0.15)


def test_more_is_wrong_of_what_is_hidden(detector):
    seen, hidden = (np.nanmedian(np.linalg.norm(draw(detector, state)[0], axis=-1), axis=(0, 1)) for state in (0, 1))
    assert (hidden[OWN] > 1.3 * seen[OWN]).all()


def test_errors_last_as_measured(detector):
    """Medians of changes over a time follow from the correlation time and the parts."""
    for step in (1 / 60, 1 / 12):
        errors, _ = draw(detector, 0, step=step)
        for group, members in GROUPS.items():
            _, lasting, jitter = np.square(getattr(detector.parameters.parts, group))
            of = errors[:, :, list(members)] / [[[detector.parameters.joints[JOINTS[j]].error[0]] for j in members]]
            for lag in (1, 4):
                change = np.nanmedian(np.linalg.norm(of[:, lag:] - of[:, :-lag], axis=-1))
                lost = 1 - np.exp(-lag * step / detector.parameters.correlation_time)
                np.testing.assert_allclose(change, MEDIAN * np.sqrt(2 * (jitter + lasting * lost)), rtol=0.15)


def test_confidence_has_the_measured_quantiles(detector):
    ranks = torch.tensor(detector.parameters.confidence.ranks).reshape(-1, 1, 1).repeat(1, 1, len(JOINTS))
    distance = torch.full(ranks.shape, 0.2)
    row = int(np.searchsorted(detector.parameters.confidence.edges, 0.2))
    for number, state in enumerate(("seen", "hidden", "outside")):
        found = detector.confidence(distance, torch.full(ranks.shape, number), ranks)[:, 0]
        for group, members in GROUPS.items():
            table = getattr(getattr(detector.parameters.confidence, group), state)[row]
            for joint in members:
                np.testing.assert_allclose(found[:, joint], table, atol=1e-6)


def test_confidence_falls_with_errors_and_where_limbs_are_hidden(detector):
    (errors, seen), (_, hidden) = draw(detector, 0), draw(detector, 1)
    limbs = list(GROUPS["limbs"])
    length, seen = np.linalg.norm(errors, axis=-1)[..., limbs], seen[..., limbs]
    assert np.median(seen[length < 0.05]) > np.median(seen[length > 0.3]) + 0.2
    assert np.nanmedian(seen) > np.nanmedian(hidden[..., limbs]) + 0.3


def test_kinds_come_in_their_shares(detector):
    torch.manual_seed(0)
    share = np.bincount(detector.kinds(100_000)) / 1e5
    np.testing.assert_allclose(share[list(KINDS)], [0.3, 0.3, 0.4], atol=0.01)


def test_exact_detectors_hardly_err_and_mean_the_joints_themselves(detector):
    joints = torch.randn(4, 5, len(JOINTS), 3)
    assert torch.equal(detector.definitions(joints, torch.full((4,), EXACT)), joints)
    exact, broad = (np.nanmedian(np.linalg.norm(draw(detector, 0, kind)[0], axis=-1)) for kind in (EXACT, BROAD))
    assert exact < 0.15 * broad


def test_what_is_hidden_is_as_exact_as_what_is_seen(detector):
    """Keypoints that follow from motion capture know no hidden joints; most say so with confidence 1."""
    torch.manual_seed(0)
    joints = torch.randn(200, 9, len(JOINTS), 3) * 0.3 + torch.tensor([0, 0, 4.0])
    ones, half = torch.ones(200), torch.full((200, 2), 500.0)
    found = detector.detect(joints, 500 * ones, half, ones / 30, torch.full((200,), EXACT))
    there = found[..., 2].amax(-1) > 0
    off = (found[..., :2] - 500 * joints[..., :2] / joints[..., 2:]).norm(dim=-1)[there][:, OWN]
    size = 500 * 0.3 / 4 * 2**0.5
    assert off.quantile(0.999) < 0.1 * size
    certain = (found[..., 2] == 1).all(-1)[there].float().mean()
    assert 0.6 < certain < 0.8


def test_trunk_joints_are_means_of_others(detector):
    torch.manual_seed(0)
    places, ones = torch.randn(50, FRAMES, len(JOINTS), 2), torch.ones(50)
    for joint, parts in MEANS.items():
        places[:, :, joint] = places[:, :, list(parts)].mean(2)
    state = torch.zeros(places.shape[:3], dtype=torch.long)
    found = detector.err(places, state, ones, ones / 30, MEASURED * ones.long())
    for joint, parts in MEANS.items():
        torch.testing.assert_close(found[:, :, joint, :2], found[:, :, list(parts), :2].mean(2))
        assert torch.equal(found[:, :, joint, 2], found[:, :, list(parts), 2].amin(2))


def test_draws_follow_from_the_seed(detector):
    (first, _), (again, _), (other, _) = draw(detector, 0), draw(detector, 0), draw(detector, 0, seed=1)
    assert np.array_equal(first, again, equal_nan=True) and not np.array_equal(first, other, equal_nan=True)


def test_an_arm_behind_the_trunk_is_hidden():
    """Someone who faces the camera, the left wrist on the back and the right one before the belly."""
    joints = torch.zeros(len(JOINTS), 3)
    x = {1: -0.1, 2: -0.1, 3: -0.1, 4: 0.1, 5: 0.1, 6: 0.1, 11: 0.2, 12: 0.3, 13: 0.02, 14: -0.2, 15: -0.3, 16: -0.02}
    y = {2: 0.45, 3: 0.9, 5: 0.45, 6: 0.9, 7: -0.25, 8: -0.5, 9: -0.6, 10: -0.8, 11: -0.5, 12: -0.25, 13: -0.2}
    y |= {14: -0.5, 15: -0.25, 16: -0.2}
    for joint in range(len(JOINTS)):
        joints[joint] = torch.tensor([x.get(joint, 0.0), y.get(joint, 0.0), 4.0])
    joints[[12, 13], 2] += torch.tensor([0.1, 0.2])
    joints[[15, 16], 2] -= torch.tensor([0.1, 0.2])
    assert behind_body(joints).nonzero().flatten().tolist() == [13]


def test_tables_that_do_not_fit_are_refused(tmp_path):
    text = PARAMETERS.read_text()
    for old, new, expected in (
        ("  right hip:", "  right hop:", "unknown joint 'right hop'"),
        ("common:", "comon:", "common: field required"),
        ("  ranks: [0.0,", "  ranks: [0.5,", "ranks must ascend"),
        ("  edges: [0.03,", "  edges: [0.01, 0.03,", "trunk: seen must have 7 rows"),
    ):
        assert old in text
        path = tmp_path / "noise.yaml"
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(UserError, match=expected) as error:
            SimulatedDetector(path)
        assert str(path) in str(error.value)
    path.unlink()
    with pytest.raises(UserError, match="no such file"):
        SimulatedDetector(path)
