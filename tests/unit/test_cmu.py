"""The shipped motion capture seen by virtual cameras."""

import few_motions
import numpy as np
import pytest
from few_motions import MOTION

from lib.body.skeleton import LIMBS
from lib.data.convert import cmu_views as cmu
from lib.data.datasets.h36m import DataReaderH36M
from lib.data.pickles import load_arrays
from lib.errors import UserError


@pytest.fixture(scope="module")
def few_clips(tmp_path_factory):
    return few_motions.write(tmp_path_factory.mktemp("motion") / "few.npz")


@pytest.fixture(scope="module")
def views(few_clips, tmp_path_factory):
    path = tmp_path_factory.mktemp("views") / cmu.VIEWS_FILE
    assert cmu.make_views(few_clips, path)
    return path


def test_the_reader_takes_the_views_as_human36m(views):
    reader = DataReaderH36M(27, 3, 27, 27, dt_root=views.parent, dt_file=views.name)
    train_input, test_input, train_label, test_label = reader.get_sliced_data()
    assert train_input.shape[1:] == (27, 17, 3) and len(test_input) == len(test_label) > 0
    assert np.abs(train_label[..., :2]).max() < 1.2  # the person is in the picture, but for an edge


def test_views_follow_from_the_seed_and_are_cached(views, few_clips, tmp_path):
    before = views.stat().st_mtime_ns
    assert not cmu.make_views(few_clips, views)
    assert views.stat().st_mtime_ns == before
    again, other = tmp_path / "again.pkl", tmp_path / "other.pkl"
    cmu.make_views(few_clips, again)
    cmu.make_views(few_clips, other, seed=1)
    first, second, third = (load_arrays(path) for path in (views, again, other))
    for key in first["train"]:
        np.testing.assert_array_equal(first["train"][key], second["train"][key])
    assert not np.array_equal(first["train"]["joint_2d"], third["train"]["joint_2d"])
    np.testing.assert_array_equal(first["test"]["joint3d_image"], third["test"]["joint3d_image"])
    cmu.make_views(few_clips, again, seed=1)
    np.testing.assert_array_equal(load_arrays(again)["train"]["joint_2d"], third["train"]["joint_2d"])


def test_a_damaged_cache_is_made_anew(few_clips, tmp_path):
    path = tmp_path / "views.pkl"
    path.write_bytes(b"not a pickle")
    assert cmu.make_views(few_clips, path)
    assert set(load_arrays(path)) == {"train", "test", "provenance"}


def test_layout_is_consistent_and_cameras_see_real_bodies(views):
    part = load_arrays(views)["test"]
    image, factor = part["joint3d_image"].astype(float), part["2.5d_factor"]
    np.testing.assert_allclose(part["joints_2.5d_image"], image * factor[:, None, None], rtol=1e-5, atol=1e-2)
    # Undo the projection: X = (u - cx) Z / f has to give bones of constant length in each recording.
    width_height = np.array([cmu.CAMERA_SIZES[name] for name in part["camera_name"]])
    focal = np.array([cmu.FOCAL_LENGTHS[name] for name in part["camera_name"]])
    root_depth = factor * focal
    depth = image[..., 2] * factor[:, None] + root_depth[:, None]
    xy = (image[..., :2] - width_height[:, None] / 2) * (depth / focal[:, None])[..., None]
    joints = np.concatenate([xy, depth[..., None]], axis=-1)
    for source in np.unique(part["source"]):
        rows = part["source"] == source
        for a, b in LIMBS:
            length = np.linalg.norm(joints[rows, a] - joints[rows, b], axis=-1)
            assert length.std() < 0.12 * length.mean(), (source, a, b)
    assert (depth > 1400).all()  # mm


def test_detection_noise_is_as_documented():
    rng = np.random.default_rng(0)
    pixels = np.zeros((20000, 17, 2))
    fps, quiet = 60.0, cmu.OUTLIERS_PER_SECOND
    keypoints, confidence = cmu._detect(pixels, np.full(20000, cmu.REFERENCE_HEIGHT), fps, rng)
    typical = np.percentile(np.abs(keypoints), 68.3, axis=(0, 2))
    np.testing.assert_allclose(typical, cmu.JOINT_NOISE, rtol=0.1)
    x = np.clip(keypoints[:, 0, 0], -12, 12)  # the pelvis, outliers cut off
    lag = round(cmu.CORRELATION_TIME * fps)
    correlation = np.corrcoef(x[:-lag], x[lag:])[0, 1]
    assert correlation == pytest.approx(cmu.CORRELATED_VARIANCE / np.e, abs=0.08)
    far = np.linalg.norm(keypoints, axis=-1) > 5 * cmu.JOINT_NOISE
    assert 0.3 < far.mean() / (quiet * cmu.OUTLIER_DURATION) < 1.2
    assert confidence[far].mean() < 0.6 < 0.8 < confidence[~far].mean()
    assert 0 <= confidence.min() and confidence.max() <= 1


def test_motion_file_missing_or_truncated_is_named(tmp_path):
    with pytest.raises(UserError, match="absent.npz: no such file"):
        cmu.make_views(tmp_path / "absent.npz", tmp_path / "views.pkl")
    (tmp_path / "short.npz").write_bytes(MOTION.read_bytes()[:100_000])
    with pytest.raises(UserError, match="short.npz: is truncated"):
        cmu.make_views(tmp_path / "short.npz", tmp_path / "views.pkl")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["short.npz"]
