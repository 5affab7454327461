"""Noise and masks on 2D input, and the losses and data sets of 2D pre-training, on small clips."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT

from lib.body.layouts import LAYOUTS, to_h36m
from lib.body.skeleton import JOINTS
from lib.config import Config
from lib.data.datasets.instavariety import InstaVarietyClips
from lib.data.datasets.posetrack import KEYPOINTS, PoseTrackClips, read_tracks, track_clip
from lib.data.detection_noise import DetectionNoise
from lib.data.transforms import input_errors, mask
from lib.errors import UserError
from lib.task.losses import weighted_2d

NOISE = ROOT / "configs/noise/detections.yaml"


@pytest.fixture
def noise():
    torch.manual_seed(0)
    return DetectionNoise(NOISE)


def changed_noise(tmp_path, **changes):
    """The shipped parameters with other ones for every joint (`joint`) or at the top."""
    values = yaml.safe_load(NOISE.read_text())
    for joint in values["joints"].values():
        joint |= changes.get("joint", {})
    values |= {key: value for key, value in changes.items() if key != "joint"}
    path = tmp_path / "noise.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_shipped_noise_has_the_size_that_its_file_says(noise):
    """The detections of lib/data/convert/cmu_views.py: px at a person 400 px tall, in a picture of 1000 px."""
    from lib.data.convert.cmu_views import JOINT_NOISE

    errors = noise.errors(4000, 30)
    middle = errors.abs().flatten(0, 1).quantile(0.6827, dim=0).mean(-1)  # one standard deviation, outliers aside
    torch.testing.assert_close(middle, torch.tensor(JOINT_NOISE / 500, dtype=torch.float32), rtol=0.12, atol=0)


def test_noise_lasts_for_some_frames_and_ends(tmp_path):
    torch.manual_seed(0)
    noise = DetectionNoise(changed_noise(tmp_path, joint={"std": [0.1, 0.2], "gaussian": 1, "jitter": 0}))
    errors = noise.errors(2000, 94)  # 11 key frames, 9.3 frames apart
    at_keys = errors[:, [0, -1]]
    torch.testing.assert_close(at_keys.std((0, 1, 2)), torch.tensor([0.1, 0.2]), rtol=0.05, atol=0)
    assert errors.diff(dim=1).diff(dim=1).abs().median() < 1e-6  # straight lines between key frames

    def correlation(frames):
        return torch.corrcoef(torch.stack([errors[:, 0].flatten(), errors[:, frames].flatten()]))[0, 1]

    assert correlation(3) > 0.8 and abs(correlation(30)) < 0.05


def test_outliers_jitter_and_mean(tmp_path):
    torch.manual_seed(0)
    uniform = DetectionNoise(changed_noise(tmp_path, joint={"gaussian": 0, "jitter": 0}, uniform_range=0.5))
    errors = uniform.errors(500, 10)
    assert 0.24 < errors.abs().max() <= 0.25
    jitter = DetectionNoise(
        changed_noise(tmp_path, joint={"gaussian": 1, "std": [0, 0], "jitter": 0.01, "mean": [1, 2]})
    )
    errors = jitter.errors(500, 10)
    torch.testing.assert_close(errors.mean((0, 1, 2)), torch.tensor([1.0, 2.0]), rtol=1e-3, atol=0)
    assert errors.diff(dim=1).std() == pytest.approx(0.01 * 2**0.5, rel=0.05)


def test_confidence_falls_with_distance(noise):
    distance = torch.tensor([0, 0.02, 0.05, 0.1, 0.3]).expand(2000, -1)
    found = noise.confidence(distance)
    assert found.min() >= 0 and found.max() <= 1
    expected = 0.9 * np.exp(-((distance[0].numpy() / 0.05) ** 2) / 2)
    np.testing.assert_allclose(found.mean(0), expected, atol=0.09)


def test_noise_leaves_the_unseen_alone_and_serves_inputs_without_confidence(noise):
    clips = torch.rand(2, 12, 17, 3)
    clips[:, :, 5] = 0
    noisy = noise(clips)
    assert (noisy[:, :, 5] == 0).all()
    assert (noisy[:, :, :5, :2] != clips[:, :, :5, :2]).all() and (noisy[..., :2] - clips[..., :2]).abs().max() < 0.3
    assert noise(clips[..., :2]).shape == (2, 12, 17, 2)
    assert noise(clips[:, :1]).shape == (2, 1, 17, 3)


def test_masks_hit_the_share_that_they_say():
    torch.manual_seed(0)
    clips = torch.ones(50, 40, 17, 3)
    masked = mask(clips, 0.2, 0)
    gone = masked == 0
    assert (gone.any(-1) == gone.all(-1)).all() and gone.float().mean() == pytest.approx(0.2, abs=0.01)
    masked = mask(clips, 0, 0.1)
    gone = masked == 0
    assert (gone.any((-1, -2)) == gone.all((-1, -2))).all() and gone.float().mean() == pytest.approx(0.1, abs=0.02)
    assert mask(clips, 0, 0) is clips


def test_detections_get_no_noise_but_masks():
    config = Config(noise=True, synthetic=True, mask_ratio=0.5, noise_path=str(NOISE))
    clips = torch.ones(4, 9, 17, 3)
    torch.manual_seed(0)
    assert set(errors(config, clips, detected=True).unique().tolist()) == {0, 1}
    assert len(errors(config, clips).unique()) > 100


def errors(config, clips, detected=False):
    """Return clips with the noise and masks of a config."""
    batch = {"keypoints": clips}
    for transform in input_errors(config, detected):
        batch = transform(batch)
    return batch["keypoints"]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"key_spacing": 0}, "key_spacing: input should be greater than 0"),
        ({"key_spaceing": 3}, "key_spaceing: unknown key (did you mean 'key_spacing'?)"),
        ({"joint": {"gaussian": 2}}, "gaussian: input should be less than or equal to 1"),
        ({"joint": {"std": [0.1]}}, "std"),
        ({"joints": {}}, "joints: joint 'pelvis' is missing"),
        ({"uniform_range": float("nan")}, "uniform_range: input should be a finite number"),
    ],
)
def test_a_wrong_noise_file_is_one_line(tmp_path, change, message):
    with pytest.raises(UserError) as error:
        DetectionNoise(changed_noise(tmp_path, **change))
    assert "noise.yaml: " in str(error.value) and message in str(error.value) and "\n" not in str(error.value)


def test_noise_files_that_are_none(tmp_path):
    (tmp_path / "n.yaml").write_text("a: [")
    for path, message in ((tmp_path / "n.yaml", "is not YAML"), ("configs/noise/detection.yaml", "did you mean")):
        with pytest.raises(UserError, match=message):
            DetectionNoise(path)


def test_the_2d_loss_is_weighted_by_confidence():
    predicted, seen = torch.zeros(1, 2, 17, 3), torch.zeros(1, 2, 17, 3)
    predicted[..., 2] = 5  # depth is not looked at
    predicted[0, 0, 3, :2] = torch.tensor([3.0, 4.0])
    predicted[0, 1, 4, :2] = 7
    confidence = torch.ones(1, 2, 17, 1)
    confidence[0, 0, 3], confidence[0, 1, 4] = 0.5, 0
    assert weighted_2d(predicted, seen, confidence).item() == pytest.approx(5 * 0.5 / 34)


def person(rng, frames, left_out=()):
    """Keypoints (frames, 17, 3) of PoseTrack's layout, all seen but those of `left_out`."""
    points = np.concatenate([rng.uniform(100, 700, (frames, 17, 2)), np.ones((frames, 17, 1))], -1)
    for name in left_out:
        points[:, KEYPOINTS.index(name)] = 0
    return points


def annotations(tracks, names=KEYPOINTS):
    """The file content of {track: (n, 17, 3)}, frame by frame."""
    rows = [
        {"track_id": track, "image_id": frame, "keypoints": points[frame].ravel().tolist()}
        for frame in range(max(map(len, tracks.values())))
        for track, points in tracks.items()
        if frame < len(points)
    ]
    return {"images": [], "annotations": rows, "categories": [{"name": "person", "keypoints": list(names)}]}


def test_posetrack_clips(tmp_path):
    rng = np.random.default_rng(0)
    track = person(rng, 33, ["left_ear", "right_ear", "left_wrist"])
    tracks = {3: track, 5: person(rng, 29), 7: person(rng, 30, ["left_hip"]), 8: person(rng, 40, KEYPOINTS[5:12])}
    (tmp_path / "a.json").write_text(json.dumps(annotations(tracks)))
    clips = PoseTrackClips(tmp_path)
    assert len(clips) == 1  # the others are too short, without a pelvis, and 10 of 17 seen
    clip = clips[[0]]["keypoints"][0].numpy()
    assert clip.shape == (30, 17, 3) and clip.dtype == np.float32
    seen = track[:30][track[:30, :, 2] > 0][:, :2]
    middle, size = (seen.min(0) + seen.max(0)) / 2, (seen.max(0) - seen.min(0)).max()
    assert np.abs(clip[..., :2]).max() <= 1

    def scaled(*names):
        return np.mean([(track[:30, KEYPOINTS.index(n), :2] - middle) / size * 2 for n in names], axis=0)

    for joint, value in (
        ("pelvis", scaled("left_hip", "right_hip")),
        ("right ankle", scaled("right_ankle")),
        ("left elbow", scaled("left_elbow")),
        ("thorax", scaled("left_shoulder", "right_shoulder")),
        ("spine", scaled("left_hip", "right_hip", "left_shoulder", "right_shoulder")),
        ("nose", scaled("nose")),
        ("head top", scaled("head_top")),
        ("left wrist", np.zeros((30, 2))),
    ):
        np.testing.assert_allclose(clip[:, JOINTS.index(joint), :2], value, atol=1e-6, err_msg=joint)
    assert set(clip[:, JOINTS.index("left wrist"), 2]) == {0} and clip[..., 2].sum() == 30 * 16


def test_posetrack_trains_on_the_trunk_that_inference_sees():
    """The same person annotated by PoseTrack18 and found by a COCO detector has the same trunk and limbs."""
    track = person(np.random.default_rng(2), 30)
    coco = [KEYPOINTS.index(joint.replace(" ", "_")) for joint in LAYOUTS["coco17"] if "eye" not in joint]
    found = np.ones((30, 17, 3))
    found[:, [0, *range(3, 17)]] = track[:, coco]
    clip, seen = track_clip(track, 30), to_h36m(found, "coco17")
    shared = [joint for joint in range(17) if JOINTS[joint] != "head top"]
    middle, size = (track[..., :2].min((0, 1)) + track[..., :2].max((0, 1))) / 2, np.ptp(track[..., :2], (0, 1)).max()
    np.testing.assert_allclose(clip[:, shared, :2] * size / 2 + middle, seen[:, shared, :2], atol=1e-3)


def test_posetrack_keypoints_are_taken_by_name(tmp_path):
    rng = np.random.default_rng(1)
    track = person(rng, 30)
    (tmp_path / "a.json").write_text(json.dumps(annotations({1: track})))
    order = rng.permutation(17)
    (tmp_path / "b.json").write_text(json.dumps(annotations({1: track[:, order]}, [KEYPOINTS[i] for i in order])))
    first, second = (track_clip(read_tracks(tmp_path / name)[0], 30) for name in ("a.json", "b.json"))
    np.testing.assert_array_equal(first, second)


def edited(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c["annotations"][2].pop("keypoints"), "a.json: annotation 2: lacks 'keypoints'"),
        (lambda c: c["annotations"][0].pop("track_id"), "a.json: annotation 0: lacks 'track_id'"),
        (lambda c: c["annotations"][4]["keypoints"].pop(), "a.json: annotation 4: 'keypoints' has shape (50,)"),
        (lambda c: c["annotations"][1].update(keypoints=[float("nan")] * 51), "annotation 1: 'keypoints' is not finite"),
        (lambda c: c["annotations"][1].update(keypoints="many"), "annotation 1: 'keypoints' or 'track_id' are not numbers"),
        (lambda c: c.pop("annotations"), "a.json: lacks the list 'annotations'"),
        (lambda c: c["categories"][0].update(keypoints=["neck", *KEYPOINTS[1:]]), "categories: 'keypoints' lacks 'nose'"),
        (lambda c: c["annotations"][1].update(track_id=float("inf")), "annotation 1: 'keypoints' or 'track_id' are not"),
        (lambda c: c["annotations"][1]["keypoints"].__setitem__(3, 10**400), "annotation 1: 'keypoints' or 'track_id'"),
        (lambda c: c["categories"][0].update(keypoints=None), "categories: 'keypoints' is None, expected a list"),
        (lambda c: c["categories"][0].update(keypoints=3), "categories: 'keypoints' is 3, expected a list of names"),
        (lambda c: c.update(annotations=c["annotations"][:20]), "no track has 30 frames with enough visible joints; set"),
    ],
)  # fmt: skip
def test_wrong_annotations_are_one_line(tmp_path, change, message):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(annotations({1: person(np.random.default_rng(0), 30)})))
    edited(path, change)
    with pytest.raises(UserError) as error:
        PoseTrackClips(tmp_path)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_truncated_annotation_file_is_named(tmp_path):
    text = json.dumps(annotations({1: person(np.random.default_rng(0), 30)}))
    (tmp_path / "a.json").write_text(text[: len(text) // 2])
    with pytest.raises(UserError, match="a.json: is truncated or not JSON"):
        PoseTrackClips(tmp_path)


def write_instavariety(folder, lengths, rng, dtype=np.float64):
    folder.mkdir(parents=True, exist_ok=True)
    motion = np.concatenate([rng.uniform(-1, 1, (sum(lengths), 17, 2)), rng.uniform(0.1, 1, (sum(lengths), 17, 1))], -1)
    np.save(folder / "motion_all.npy", motion.astype(dtype))
    np.save(folder / "id_all.npy", np.repeat(np.arange(len(lengths), dtype=float), lengths))
    return motion


def test_instavariety_clips(tmp_path):
    rng = np.random.default_rng(0)
    motion = write_instavariety(tmp_path, [200, 40, 90, 81], rng)
    motion[240, 0, 2] = 0  # the third video's first pelvis
    np.save(tmp_path / "motion_all.npy", motion)
    np.random.seed(0)
    clips = InstaVarietyClips(tmp_path)
    assert len(clips) == 5 + 1 + 0 + 1  # (200 - 81) // 27 + 1; 40 resampled; 90 begins without a pelvis; 81
    found, target = (clips[[1, 6]][key] for key in ("keypoints", "pose"))
    assert found.shape == (2, 81, 17, 3) and found.dtype == torch.float32 and torch.equal(found, target)
    np.testing.assert_array_equal(found[0], motion[27:108].astype(np.float32))
    np.testing.assert_array_equal(found[1], motion[330:411].astype(np.float32))
    resampled = clips[[5]]["keypoints"][0]
    assert (resampled[0].numpy() == motion[200].astype(np.float32)).all()


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda f: (f / "motion_all.npy").unlink(), "motion_all.npy: no such file; put InstaVariety's"),
        (lambda f: (f / "id_all.npy").unlink(), "id_all.npy: no such file"),
        (lambda f: np.save(f / "id_all.npy", np.zeros(5)), "id_all.npy: has shape (5,), expected (100,)"),
        (lambda f: np.save(f / "motion_all.npy", np.zeros((100, 16, 3))), "has shape (100, 16, 3), expected (n, 17, 3)"),
        (lambda f: np.save(f / "motion_all.npy", np.full((100, 17, 3), np.nan)), "is not finite or beyond 10000 in frame 0"),
        (lambda f: np.save(f / "motion_all.npy", np.r_[np.zeros((7, 17, 3)), np.full((93, 17, 3), 2e4)]), "in frame 7; copy"),
        (lambda f: np.save(f / "motion_all.npy", np.zeros((100, 17, 3))), "first pelvis has confidence; set a lower maxlen"),
        (lambda f: (f / "motion_all.npy").write_bytes(b"?" * 500), "of numbers (pickles are not loaded); copy it again"),
        (lambda f: np.save(f / "id_all.npy", np.array([{}] * 100)), "id_all.npy: holds Python objects, which are not loaded"),
        (lambda f: np.save(f / "id_all.npy", np.array(["a"] * 100)), "id_all.npy: holds <U1"),
        (
            lambda f: (f / "motion_all.npy").write_bytes((f / "motion_all.npy").read_bytes()[:3000]),
            "motion_all.npy: is truncated or not a .npy file",
        ),
    ],
)  # fmt: skip
def test_wrong_instavariety_arrays_are_one_line(tmp_path, damage, message):
    write_instavariety(tmp_path / "i", [100], np.random.default_rng(0))
    damage(tmp_path / "i")
    with pytest.raises(UserError) as error:
        InstaVarietyClips(tmp_path / "i")
    assert message in str(error.value) and "\n" not in str(error.value)
    shutil.rmtree(tmp_path / "i")
