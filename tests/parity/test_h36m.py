"""The Human3.6M reader and its scores against the published reader and evaluation, and damaged files."""

import pickle

import numpy as np
import pytest
from conftest import PARITY, Trap

from lib.body.skeleton import flip
from lib.data.clips import split_clips
from lib.data.datasets.h36m import DataReaderH36M
from lib.data.pickles import load_arrays
from lib.data.store import Sequences
from lib.errors import UserError
from lib.eval.h36m import evaluate_h36m, mpjpe, p_mpjpe


@pytest.fixture(scope="module")
def expected():
    with np.load(PARITY / "h36m_expected.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}


@pytest.fixture
def reader(expected):
    np.random.seed(int(expected["numpy_seed"]))
    return DataReaderH36M(
        n_frames=int(expected["n_frames"]),
        sample_stride=1,
        data_stride_train=int(expected["train_stride"]),
        data_stride_test=int(expected["test_stride"]),
        read_confidence=True,
        dt_root=str(PARITY),
        dt_file="h36m_schema.pkl",
    )


@pytest.fixture
def dataset():
    """The small file in Human3.6M's layout, to be damaged."""
    return load_arrays(PARITY / "h36m_schema.pkl")


def read(tmp_path, dataset):
    with open(tmp_path / "file.pkl", "wb") as handle:
        pickle.dump(dataset, handle)
    return DataReaderH36M(27, 1, 9, 27, dt_root=tmp_path, dt_file="file.pkl")


def test_clip_indices_are_the_published_ones():
    with np.load(PARITY / "clips.npz") as published:
        np.random.seed(int(published["numpy_seed"]))
        runs = Sequences.of_frames(*[published["source"]] * 3)
        clips = split_clips(runs, int(published["n_frames"]), int(published["stride"]))
        np.testing.assert_array_equal(clips, published["clips"])


def test_flip_is_the_published_one():
    with np.load(PARITY / "clips.npz") as published:
        np.testing.assert_array_equal(flip(published["flip_in"]), published["flip_out"])


def test_sliced_data_and_split_are_exactly_the_published_ones(reader, expected):
    train_input, test_input, train_label, test_label = reader.get_sliced_data()
    train_clips, test_clips = reader.get_split_id()
    for name, value in {
        "train_input": train_input,
        "test_input": test_input,
        "train_label": train_label,
        "test_label": test_label,
        "train_clips": train_clips,
        "test_clips": test_clips,
    }.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_denormalize_is_exactly_the_published_one(reader, expected):
    """The published evaluation zeroes the root, denormalises, and brings scored clips to mm in place."""
    prediction = expected["prediction"].copy()
    prediction[:, :, 0] = 0
    pixels = reader.denormalize(prediction)
    _, clips = reader.get_split_id()
    sources = reader.array("test", "source")[clips[:, 0]]
    excluded = np.char.startswith(sources, "s_09_act_05_subact_02")
    factor = reader.array("test", "2.5d_factor")[clips][:, :, None, None]
    factor[excluded] = 1
    assert 0 < excluded.sum() < len(clips)
    np.testing.assert_array_equal((pixels * factor).astype(np.float32), expected["denormalized"])


def test_denormalize_inverts_the_normalisation(reader):
    _, _, _, test_label = reader.get_sliced_data()
    _, clips = reader.get_split_id()
    np.testing.assert_allclose(reader.denormalize(test_label), reader.array("test", "joint3d_image")[clips], atol=1e-3)
    with pytest.raises(ValueError, match="^test_data: expected"):
        reader.denormalize(test_label[1:])


def test_scores_are_the_published_ones(reader, expected):
    scores = evaluate_h36m(expected["prediction"], reader)
    assert scores.mpjpe == pytest.approx(float(expected["mpjpe"]), rel=1e-7)
    assert scores.p_mpjpe == pytest.approx(float(expected["p_mpjpe"]), rel=1e-7)
    assert list(scores.per_action) == expected["actions"].tolist()
    errors = np.array(list(scores.per_action.values()))
    np.testing.assert_allclose(errors[:, 0], expected["per_action_mpjpe"], rtol=1e-7)
    np.testing.assert_allclose(errors[:, 1], expected["per_action_p_mpjpe"], rtol=1e-7)


def test_perfect_poses_score_zero(reader):
    _, _, _, test_label = reader.get_sliced_data()
    root_relative = test_label - test_label[:, :, :1]
    for rootrel, poses in ((True, root_relative), (False, test_label)):
        scores = evaluate_h36m(poses, reader, rootrel=rootrel)
        assert scores.mpjpe < 0.01 and scores.p_mpjpe < 0.01


def test_an_action_with_only_excluded_sources_is_left_out(tmp_path, dataset):
    source, action = (np.array(dataset["test"][key], "U40") for key in ("source", "action"))
    action[np.char.startswith(source, "s_09_act_05_subact_02")] = "OnlyWrong"
    dataset["test"]["action"] = action
    reader = read(tmp_path, dataset)
    scores = evaluate_h36m(reader.get_sliced_data()[3], reader, rootrel=False)
    assert "OnlyWrong" not in scores.per_action
    assert np.isfinite(scores[:2]).all()


def test_a_file_with_only_excluded_sources_is_named(tmp_path, dataset):
    dataset["test"]["source"] = np.full(len(dataset["test"]["source"]), "s_09_act_05_subact_02_ca_01")
    reader = read(tmp_path, dataset)
    with pytest.raises(UserError, match="file.pkl: every test clip is of a source with wrong labels"):
        evaluate_h36m(reader.get_sliced_data()[3], reader)


def test_pose_errors_are_the_published_ones():
    with np.load(PARITY / "metrics.npz") as m:
        np.testing.assert_allclose(mpjpe(m["pred"], m["target"]), m["mpjpe"], rtol=1e-10)
        np.testing.assert_allclose(p_mpjpe(m["pred"], m["target"]), m["p_mpjpe"], rtol=1e-8, atol=1e-9)


def test_p_mpjpe_removes_a_similarity_but_no_reflection():
    rng = np.random.default_rng(0)
    pose = rng.standard_normal((1, 17, 3))
    rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    moved = 2.5 * pose @ rotation + rng.standard_normal(3)
    assert p_mpjpe(moved, pose) < 1e-12
    assert p_mpjpe(moved * [-1, 1, 1], pose) > 0.1
    assert np.isfinite(p_mpjpe(np.zeros_like(pose), pose)).all()


def test_confidence_may_be_missing_or_have_one_channel(tmp_path, dataset):
    with_channel = {s: {**part, "confidence": part["confidence"][..., None]} for s, part in dataset.items()}
    without = {s: {k: v for k, v in part.items() if k != "confidence"} for s, part in dataset.items()}
    inputs = read(tmp_path, with_channel).read_2d("test")
    np.testing.assert_array_equal(inputs[..., 2], dataset["test"]["confidence"].astype(np.float32))
    assert (read(tmp_path, without).read_2d("test")[..., 2] == 1).all()


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda d: d.pop("test"), "has no dict 'test'"),
        (lambda d: d["train"].pop("2.5d_factor"), "'train' lacks '2.5d_factor'"),
        (lambda d: d["test"].update(joint_2d=d["test"]["joint_2d"][1:]), r"test\['joint_2d'\] has shape"),
        (lambda d: d["test"].update(source=d["test"]["source"][1:]), r"test\['source'\] has shape \(\d+,\), expected"),
        (
            lambda d: d["train"].update(action=d["train"]["action"][1:]),
            r"train\['action'\] has shape \(\d+,\), expected",
        ),
        (lambda d: d["test"]["joint3d_image"].__setitem__((7, 3, 1), np.nan), r"is not finite in frame 7"),
        (lambda d: d["train"]["camera_name"].__setitem__(5, "999"), "has '999' in frame 5, whose image size"),
        (lambda d: d["train"].update(confidence=np.full(640, "x")), "shape|expected numbers"),
        (lambda d: d["train"].update({"2.5d_factor": np.full(640, "x")}), "expected numbers"),
    ],
)
def test_a_wrong_layout_is_named(tmp_path, dataset, damage, message):
    damage(dataset)
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path, dataset)
    assert "file.pkl" in str(error.value) and "\n" not in str(error.value)


def test_missing_and_truncated_files_are_named(tmp_path):
    with pytest.raises(UserError, match="absent.pkl: no such file"):
        load_arrays(tmp_path / "absent.pkl")
    whole = (PARITY / "h36m_schema.pkl").read_bytes()
    (tmp_path / "short.pkl").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="short.pkl: is truncated or not a pickle"):
        load_arrays(tmp_path / "short.pkl")


def test_a_pickle_with_code_is_refused_before_it_runs(tmp_path):
    trap = tmp_path / "trap"
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"train": Trap(trap)}))
    with pytest.raises(UserError, match=r"bad.pkl: refused: .* asks for posix.mkdir"):
        load_arrays(tmp_path / "bad.pkl")
    assert not trap.exists()


@pytest.mark.parametrize("protocol", range(2, 6))
def test_arrays_of_every_protocol_are_read(tmp_path, protocol):
    content = {
        "floats": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.ones((2, 3), np.float32)),
        "names": np.array(["a", "bc"]),
        "objects": np.array(["a", None], dtype=object),
        "scalar": np.float64(3),
        "plain": [1, 2.0, "x", None, {"y": (b"z", True)}],
    }
    (tmp_path / "file.pkl").write_bytes(pickle.dumps(content, protocol))
    loaded = load_arrays(tmp_path / "file.pkl")
    assert loaded["plain"] == content["plain"]
    for key in ("floats", "fortran", "names", "objects", "scalar"):
        np.testing.assert_array_equal(loaded[key], content[key])


def test_arrays_pickled_by_numpy_1_are_read(tmp_path):
    """NumPy 1 wrote the path numpy.core; the bytes are those of NumPy 2 with that path."""
    data = pickle.dumps({"a": np.arange(3)}, 2).replace(b"numpy._core", b"numpy.core")
    assert b"numpy.core" in data
    (tmp_path / "old.pkl").write_bytes(data)
    np.testing.assert_array_equal(load_arrays(tmp_path / "old.pkl")["a"], np.arange(3))
