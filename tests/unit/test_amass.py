"""tools/convert_amass.py on a made-up SMPL-H body, compared with the mesh posed vertex by vertex."""

import json
import pickle
import shutil

import numpy as np
import pytest
from commands_here import run_here
from conftest import Trap
from scipy.spatial.transform import Rotation

from lib.body.skeleton import FLIPPED, JOINTS
from lib.data.convert import amass
from lib.data.convert.smplh import JOINT_NAMES, find_model, read_model
from lib.data.store import open_store
from lib.data.training_clips import AMASS_SCALE, MotionClips
from lib.errors import UserError

VERTICES = 420  # enough for the two vertices of the head
PARENTS = [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19]
PARENTS += [20] * 15 + [21] * 15
FRAMES = 7


def body(rng, posed=True):
    """Arrays of a body model whose vertices each follow up to three joints."""
    weights = np.zeros((VERTICES, 52))
    for vertex in weights:
        vertex[rng.choice(52, 3, replace=False)] = rng.dirichlet([1, 1, 1])
    for vertex in (332, 412):
        weights[vertex] = np.eye(52)[JOINT_NAMES.index("head")]
    joints = rng.dirichlet(np.ones(VERTICES), 52)
    arrays = {
        "v_template": rng.normal(0, 0.5, (VERTICES, 3)),
        "shapedirs": rng.normal(0, 0.05, (VERTICES, 3, 16)),
        "J_regressor": joints,
        "weights": weights,
        "kintree_table": np.array([[2**32 - 1, *PARENTS[1:]], range(52)], np.uint32),
    }
    if posed:
        arrays["posedirs"] = rng.normal(0, 0.01, (VERTICES, 3, 459)).astype(np.float32)
    return arrays


def motion(rng, frames=FRAMES, fps=60.0, gender="male"):
    return {
        "poses": rng.normal(0, 0.5, (frames, 156)),
        "betas": rng.normal(0, 1, 16),
        "trans": rng.normal(0, 1, (frames, 3)),
        "dmpls": rng.normal(0, 1, (frames, 8)),
        "mocap_framerate": np.array(fps),
        "gender": np.array(gender),
    }


def hips_of(model):
    """(3,) from the left hip to the right one, of length 1."""
    joints = model["J_regressor"] @ model["v_template"]
    across = joints[JOINT_NAMES.index("right_hip")] - joints[JOINT_NAMES.index("left_hip")]
    return across / np.linalg.norm(across)


def slow_body(model, clip, frame):
    """Vertices (V, 3) and joints (52, 3) of a frame, by homogeneous matrices, joint by joint and vertex by vertex."""
    shaped = model["v_template"] + np.tensordot(model["shapedirs"], clip["betas"], axes=1)
    rest = model["J_regressor"] @ shaped
    own = [Rotation.from_rotvec(vector).as_matrix() for vector in clip["poses"][frame].reshape(52, 3)]
    world = []
    for joint in range(52):
        local = np.eye(4)
        local[:3, :3] = own[joint]
        local[:3, 3] = rest[joint] - (rest[PARENTS[joint]] if joint else 0)
        world.append(world[PARENTS[joint]] @ local if joint else local)
    feature = np.concatenate([(matrix - np.eye(3)).ravel() for matrix in own[1:]])
    bent = shaped + model.get("posedirs", np.zeros((VERTICES, 3, 459))) @ feature
    vertices = np.zeros((VERTICES, 3))
    for vertex in range(VERTICES):
        for joint in range(52):
            moved = world[joint] @ np.append(bent[vertex] - rest[joint], 1)
            vertices[vertex] += model["weights"][vertex, joint] * moved[:3]
    return vertices + clip["trans"][frame], np.array([matrix[:3, 3] for matrix in world]) + clip["trans"][frame]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Folders of AMASS motion and of body models, and what is in them."""
    folder, rng = tmp_path_factory.mktemp("amass"), np.random.default_rng(0)
    models = {gender: body(rng) for gender in ("male", "female")}
    for gender, arrays in models.items():
        (folder / "models" / gender).mkdir(parents=True)
        np.savez(folder / "models" / gender / "model.npz", **arrays)
    clips = {
        "CMU/01/01_01_poses": motion(rng),
        "CMU/01/01_02_poses": motion(rng, 12, 120.0, "female"),
        "KIT/3/walk_poses": motion(rng, 9, 100.0, "neutral"),
    }
    for name, arrays in clips.items():
        path = folder / "AMASS" / f"{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **arrays)
    np.savez(folder / "AMASS/KIT/3/shape.npz", betas=np.zeros(16))
    regressor = rng.dirichlet(np.ones(VERTICES), 17) * (rng.random((17, VERTICES)) < 0.05)
    regressor /= regressor.sum(1, keepdims=True)
    to_the_right = np.min([m["v_template"] @ hips_of(m) for m in models.values()], axis=0)
    to_the_left = np.min([m["v_template"] @ -hips_of(m) for m in models.values()], axis=0)
    for joint, sides in (("right hip", to_the_right), ("left hip", to_the_left)):
        regressor[JOINTS.index(joint)] = np.eye(VERTICES)[sides.argmax()]
    np.save(folder / "regressor.npy", regressor)
    return folder, models, clips, regressor


def run(folder, *arguments, code=0):
    result = run_here("tools.convert_amass", *arguments, folder=folder)
    assert result.returncode == code, result.stdout + result.stderr
    return result


def joints_of(store):
    part = open_store(store).splits["train"]
    rows = part.arrays["joints"][:]
    return {
        name: rows[a:b]
        for name, a, b in zip(part.sequences.source.tolist(), part.sequences.start, part.sequences.start[1:])
    }


def test_regressed_joints_are_those_of_the_posed_mesh(files):
    folder, models, clips, regressor = files
    result = run(
        folder, "AMASS", "--body-models", "models", "--regressor", "regressor.npy", "--out", "regressed.store"
    )  # fmt: skip
    assert "3 clips, 18 frames at 60 fps" in result.stdout
    found = joints_of(folder / "regressed.store")
    assert list(found) == list(clips)
    for name, gender, step in (("CMU/01/01_01_poses", "male", 1), ("CMU/01/01_02_poses", "female", 2)):
        expected = [
            regressor @ slow_body(models[gender], clips[name], frame)[0]
            for frame in range(0, len(clips[name]["trans"]), step)
        ]
        np.testing.assert_allclose(found[name], expected, atol=1e-5)
    assert found["CMU/01/01_01_poses"].dtype == np.float32
    assert "up to date" in run(
        folder, "AMASS", "--body-models", "models", "--regressor", "regressor.npy", "--out", "regressed.store"
    ).stdout  # fmt: skip


def test_without_a_regressor_the_skeleton_gives_the_joints(files):
    folder, models, clips, _ = files
    run(folder, "AMASS", "--body-models", "models", "--out", "skeleton.store")
    found = joints_of(folder / "skeleton.store")
    clip, rigid = clips["CMU/01/01_01_poses"], {k: v for k, v in models["male"].items() if k != "posedirs"}
    for frame in range(FRAMES):
        vertices, joints = slow_body(rigid, clip, frame)
        at = dict(zip(JOINT_NAMES, joints))
        for name, expected in (
            ("pelvis", (at["left_hip"] + at["right_hip"]) / 2),
            ("left knee", at["left_knee"]),
            ("right wrist", at["right_wrist"]),
            ("thorax", (at["left_shoulder"] + at["right_shoulder"]) / 2),
            ("spine", sum(at[name] for name in ("left_hip", "right_hip", "left_shoulder", "right_shoulder")) / 4),
            ("nose", vertices[332]),
            ("head top", vertices[412]),
        ):
            np.testing.assert_allclose(
                found["CMU/01/01_01_poses"][frame, JOINTS.index(name)], expected, atol=1e-5, err_msg=name
            )


def test_another_frame_rate_is_interpolated_and_neutral_is_female(files):
    folder, models, clips, _ = files
    run(folder, "AMASS/KIT", "--body-models", "models", "--out", "kit.store")
    found = joints_of(folder / "kit.store")["3/walk_poses"]
    assert len(found) == 5  # 9 frames at 100 fps: up to 0.08 s
    knee = [slow_body(models["female"], clips["KIT/3/walk_poses"], frame)[1][4] for frame in range(3)]
    np.testing.assert_allclose(found[0, JOINTS.index("left knee")], knee[0], atol=1e-5)
    np.testing.assert_allclose(found[1, JOINTS.index("left knee")], knee[1] / 3 + knee[2] * 2 / 3, atol=1e-5)


def test_blocks_and_an_interruption_change_nothing(files, monkeypatch, tmp_path):
    folder, _, _, regressor = files
    arguments = (folder / "AMASS", folder / "models", tmp_path / "out.store", 60.0, folder / "regressor.npy")
    amass.convert(*arguments)
    whole = joints_of(tmp_path / "out.store")
    arguments = (*arguments[:2], tmp_path / "again.store", *arguments[3:])
    monkeypatch.setattr(amass, "BLOCK", 3)
    read, done = amass.read_motion, []

    def interrupted(path, *rest):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(path.stem)
        return read(path, *rest)

    monkeypatch.setattr(amass, "read_motion", interrupted)
    with pytest.raises(KeyboardInterrupt):
        amass.convert(*arguments)
    assert not (tmp_path / "again.store").exists()
    monkeypatch.setattr(amass, "read_motion", lambda path, *rest: done.append(path.stem) or read(path, *rest))
    assert amass.convert(*arguments).clips == 3
    assert done == ["01_01_poses", "01_02_poses", "walk_poses"]  # each once
    for name, joints in joints_of(tmp_path / "again.store").items():
        np.testing.assert_allclose(joints, whole[name], atol=1e-6)
    assert [path.name for path in tmp_path.iterdir() if path.name[0] == "."] == []


def test_clips_of_the_store_are_seen_along_y(files):
    folder, _, _, _ = files
    if not (folder / "skeleton.store").exists():
        run(folder, "AMASS", "--body-models", "models", "--out", "skeleton.store")
    clips = MotionClips(folder / "skeleton.store", 5, 2)
    x, y = (clips[[0, 1]][key] for key in ("keypoints", "pose"))
    joints = joints_of(folder / "skeleton.store")["CMU/01/01_01_poses"]
    np.testing.assert_allclose(y[1, ..., 0], joints[2:7, :, 0] * AMASS_SCALE, rtol=1e-6)
    np.testing.assert_allclose(y[1, ..., 1], -joints[2:7, :, 2] * AMASS_SCALE, rtol=1e-6)
    np.testing.assert_allclose(y[1, ..., 2], joints[2:7, :, 1] * AMASS_SCALE, rtol=1e-6)
    assert (x[..., :2] == y[..., :2]).all() and (x[..., 2] == 1).all()


def damaged(clip, **changes):
    return {key: value for key, value in {**clip, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"poses": None}, "lacks array 'poses'"),
        ({"mocap_framerate": None}, "lacks array 'mocap_framerate'"),
        ({"poses": np.full((4, 156), np.nan), "trans": np.zeros((4, 3))}, "'poses' is not finite in row 0"),
        ({"trans": np.zeros((3, 3))}, "'trans' has shape (3, 3), expected (7, 3)"),
        ({"poses": np.zeros((7, 165))}, "'poses' has shape (7, 165), expected (n, 156)"),
        ({"poses": np.zeros((0, 156))}, "'poses' has shape (0, 156)"),
        ({"mocap_framerate": np.array(0.0)}, "'mocap_framerate' is 0.0, expected 1 to 1000 frames per second"),
        ({"mocap_framerate": np.array(1e-6)}, "'mocap_framerate' is 1e-06, expected 1 to 1000 frames per second"),
        ({"trans": np.full((7, 3), [0, 1e39, 0])}, "its joints are not finite in frame 0; values of the file are too large"),
        ({"poses": np.r_[np.zeros((3, 156)), np.full((4, 156), 1e300)]}, "its joints are not finite in frame 3"),
        ({"betas": np.ones(16, complex)}, "'betas' holds complex128, expected real numbers"),
        ({"gender": np.array("robot")}, "'gender' is 'robot', expected male, female or neutral"),
        ({"poses": np.array([print], object)}, "holds Python objects, which are not loaded; expected an .npz file of plain arrays"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_wrong_motion_is_one_line(files, tmp_path, changes, message):
    folder, _, clips, _ = files
    np.savez(tmp_path / "bad_poses.npz", **damaged(clips["CMU/01/01_01_poses"], **changes))
    with pytest.raises(UserError) as error:
        amass.convert(tmp_path, folder / "models", tmp_path / "out.store")
    assert "bad_poses.npz: " in str(error.value) and message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out.store").exists()


def refusal(folder, *arguments):
    result = run(folder, *arguments, code=2)
    assert result.stderr.count("error: ") == 1 and "Traceback" not in result.stderr, result.stderr
    return [line for line in result.stderr.splitlines() if "error: " in line][0]


def test_truncated_motion_stops_or_is_skipped(files, tmp_path):
    folder, _, clips, _ = files
    np.savez(tmp_path / "good.npz", **clips["CMU/01/01_01_poses"])
    (tmp_path / "short.npz").write_bytes((tmp_path / "good.npz").read_bytes()[:4000])
    line = refusal(tmp_path, tmp_path, "--body-models", folder / "models", "--out", "o.store")
    assert "short.npz: is truncated" in line
    done = run(tmp_path, tmp_path, "--body-models", folder / "models", "--out", "o.store", "--skip-bad")
    assert "1 clips, 7 frames at 60 fps, 1 skipped" in done.stdout and "skipped" in done.stderr


def test_an_npy_file_of_another_name_is_told_plainly(files, tmp_path):
    folder, _, _, _ = files
    with open(tmp_path / "a.npz", "wb") as handle:
        np.save(handle, np.zeros(3))
    with pytest.raises(UserError, match="a.npz: is an .npy file, expected .npz"):
        amass.convert(tmp_path, folder / "models", tmp_path / "o.store")


def test_objects_and_pickles_are_not_loaded(files, tmp_path):
    folder, _, clips, _ = files
    (tmp_path / "in").mkdir()
    path, regressor = tmp_path / "in" / "walk.npz", tmp_path / "regressor.npy"
    objects = np.array([Trap(tmp_path / "trap")], object)
    command = (folder, tmp_path / "in", "--body-models", "models", "--out", tmp_path / "o.store")
    np.savez(path, **{**clips["CMU/01/01_01_poses"], "betas": objects})
    expected = "holds Python objects, which are not loaded; expected"
    assert refusal(*command).startswith(f"error: {path}: {expected} an .npz file of plain arrays; ")
    np.save(regressor, objects, allow_pickle=True)
    assert refusal(*command, "--regressor", regressor) == f"error: {regressor}: {expected} a .npy file of numbers"
    path.write_bytes(pickle.dumps(objects))
    line = refusal(*command)
    assert f"error: {path}: is truncated or not an .npz file of plain arrays (pickles are not loaded); " in line
    assert not (tmp_path / "trap").exists()


def test_wrong_commands_are_one_line(files, tmp_path):
    folder, _, _, _ = files
    (tmp_path / "empty").mkdir()
    assert "no such folder" in refusal(folder, "absent", "--body-models", "models")
    assert "has no .npz files of motion" in refusal(folder, tmp_path / "empty", "--body-models", "models")
    assert "--body-models" in refusal(folder, "AMASS")
    assert "no such file" in refusal(folder, "AMASS", "--body-models", "models", "--regressor", "absent.npy")


def test_model_pickles_are_refused_unread(files, tmp_path):
    folder, _, _, _ = files
    (tmp_path / "male").mkdir()
    (tmp_path / "male" / "model.pkl").write_bytes(pickle.dumps(Trap(tmp_path / "trap")))
    result = run(folder, "AMASS", "--body-models", tmp_path, "--out", tmp_path / "o.store", code=2)
    assert not (tmp_path / "trap").exists()
    assert (
        "model.pkl: refused: model pickles hold chumpy objects" in result.stderr
        and "mano.is.tue.mpg.de" in result.stderr
    )


def test_a_missing_model_says_where_to_get_it(tmp_path):
    with pytest.raises(UserError, match="has no male/model.npz; .*mano.is.tue.mpg.de"):
        find_model(tmp_path, "male")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"weights": None}, "lacks array 'weights'"),
        ({"v_template": np.full((VERTICES, 3), np.inf)}, "'v_template' is not finite in row 0"),
        ({"J_regressor": np.zeros((24, VERTICES))}, "'J_regressor' has shape (24, 420), expected (52, 420)"),
        ({"v_template": np.array(1.0)}, "'v_template' has shape (), expected (V, 3)"),
        ({"shapedirs": np.zeros((VERTICES, 3))}, "'shapedirs' has shape"),
        ({"kintree_table": np.zeros((2, 24))}, "'kintree_table' has shape (2, 24), expected (2, 52)"),
        ({"kintree_table": np.full((2, 52), 9)}, "'kintree_table': a joint's parent does not come before it"),
        ({"posedirs": None}, "lacks array 'posedirs'"),
    ],
)
def test_wrong_models_are_one_line(tmp_path, change, message):
    np.savez(tmp_path / "model.npz", **damaged(body(np.random.default_rng(0)), **change))
    with pytest.raises(UserError) as error:
        read_model(tmp_path / "model.npz", with_poses=True)
    assert "model.npz: " in str(error.value) and message in str(error.value) and "\n" not in str(error.value)


def test_a_regressor_of_another_mesh_and_a_wrong_table_are_named(files, tmp_path):
    folder, _, _, _ = files
    np.save(tmp_path / "r.npy", np.zeros((17, 6890)))
    (tmp_path / "t.yaml").write_text(
        amass.TABLE.read_text().replace("spine:", "").replace("nose: nose_vertex", "nose: nek")
    )
    for arguments, message in (
        ({"regressor": tmp_path / "r.npy"}, "'regressor' has shape (17, 6890), expected (17, 420)"),
        (
            {"table": tmp_path / "t.yaml"},
            "t.yaml: joint 'nose': the skeleton has no point 'nek' (did you mean 'neck'?)",
        ),
    ):
        with pytest.raises(UserError) as error:
            amass.convert(folder / "AMASS", folder / "models", tmp_path / "o.store", **arguments)
        assert message in str(error.value)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda r: r * 100, "row 0 sums to 100, expected 1"),
        (lambda r: np.where(np.arange(17)[:, None] == 5, np.nan, r), "'regressor' is not finite in row 5"),
        (lambda r: r[list(FLIPPED)], "(left and right legs are swapped); expected pelvis, right hip, right knee"),
    ],
)
def test_a_regressor_of_another_order_or_scale_is_refused(files, tmp_path, spoil, message):
    folder, _, _, regressor = files
    np.save(tmp_path / "r.npy", spoil(regressor))
    line = refusal(
        folder, "AMASS", "--body-models", "models", "--regressor", tmp_path / "r.npy", "--out", tmp_path / "o"
    )
    assert line.startswith(f"error: {tmp_path / 'r.npy'}: ") and message in line


def test_hidden_folders_are_left_out(files, tmp_path):
    folder, _, clips, _ = files
    for name in ("a.npz", ".ipynb_checkpoints/a.npz", "b/.hidden/c/a.npz", ".d.npz"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        np.savez(tmp_path / "in" / name, **clips["CMU/01/01_01_poses"])
    amass.convert(tmp_path / "in", folder / "models", tmp_path / "o.store")
    assert list(joints_of(tmp_path / "o.store")) == ["a"]


def test_an_unreadable_file_costs_no_finished_work(files, tmp_path, monkeypatch):
    folder, _, clips, _ = files
    good = clips["CMU/01/01_01_poses"]
    for number in range(3):
        np.savez(tmp_path / f"{number}.npz", **{**good, "trans": good["trans"] + number})
    whole = (tmp_path / "2.npz").read_bytes()
    (tmp_path / "2.npz").write_bytes(whole[:4000])
    arguments = (tmp_path, folder / "models", tmp_path / "o.store")
    with pytest.raises(UserError, match="2.npz: is truncated.*; to leave out what cannot be read: --skip-bad$"):
        amass.convert(*arguments)
    read, done = amass.read_motion, []
    monkeypatch.setattr(amass, "read_motion", lambda path, *rest: done.append(path.stem) or read(path, *rest))
    ready = tmp_path / ".o.store.clips"
    shutil.copytree(ready, tmp_path / "kept")
    assert amass.convert(*arguments, skip_bad=True).clips == 2 and done == ["2"]
    assert not ready.exists()

    def start_with_what_was_kept():
        done.clear()
        shutil.rmtree(tmp_path / "o.store")
        shutil.copytree(tmp_path / "kept", ready)

    start_with_what_was_kept()
    for path in ready.glob("*.npy"):
        path.write_bytes(path.read_bytes()[:200])
    assert amass.convert(*arguments, skip_bad=True).clips == 2 and done == ["0", "1", "2"]
    start_with_what_was_kept()
    (tmp_path / "2.npz").write_bytes(whole)
    np.savez(tmp_path / "1.npz", **{**good, "trans": good["trans"] + 7})  # another motion than before
    assert amass.convert(*arguments).clips == 3 and done == ["1", "2"]
    found = joints_of(tmp_path / "o.store")
    np.testing.assert_allclose(found["1"], found["0"] + 7, atol=1e-5)
    np.testing.assert_allclose(found["2"], found["0"] + 2, atol=1e-5)


def test_provenance_says_what_a_store_is_of(files):
    folder, _, _, _ = files
    run(folder, "AMASS/KIT", "--body-models", "models", "--out", "p.store")
    provenance = json.loads((folder / "p.store" / "index.json").read_text())["provenance"]
    assert provenance["input"]["files"] == 1 and set(provenance["body_models"]) == {"male", "female"}
