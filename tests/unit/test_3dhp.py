"""MPI-INF-3DHP: both layouts through the command line to one store, its reader, its scores, and damaged files."""

import math
import pickle
import shutil
import sys
import zipfile

import numpy as np
import pytest
from commands_here import run_here
from conftest import Trap

from lib.body.skeleton import FLIPPED, JOINTS, LEFT, RIGHT
from lib.data.convert import mpi_inf_3dhp as mpi3dhp
from lib.data.convert.mpi_inf_3dhp import Archive, NpzFiles, convert
from lib.data.datasets.mpi_inf_3dhp import DataReader3DHP
from lib.data.store import Sequences, check_store, open_store, writing
from lib.errors import UserError
from lib.eval.h36m import p_mpjpe
from lib.eval.mpi_inf_3dhp import ACTIVITIES, JOINT_GROUPS, evaluate_3dhp

h5py = pytest.importorskip("h5py")
savemat = pytest.importorskip("scipy.io").savemat

# The archive's own names, in its order of 28.
NAMES_28 = (
    "spine3", "spine4", "spine2", "spine", "pelvis", "neck", "head", "head_top", "left_clavicle", "left_shoulder",
    "left_elbow", "left_wrist", "left_hand", "right_clavicle", "right_shoulder", "right_elbow", "right_wrist",
    "right_hand", "left_hip", "left_knee", "left_ankle", "left_foot", "left_toe", "right_hip", "right_knee",
    "right_ankle", "right_foot", "right_toe",
)  # fmt: skip
NAMES_17 = (
    "head_top", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "pelvis", "spine", "head",
)  # fmt: skip
OTHER_NAMES = {"thorax": "neck", "nose": "head"}

CAMERAS = (0, 1, 2, 4, 5, 6, 7, 8)
TRAIN = [f"S{subject} Seq{n}" for subject in range(1, 9) for n in (1, 2)]
TEST = [f"TS{n}" for n in range(1, 7)]


def project_order(poses, names):
    """Poses (n, J, c) of joints with these names -> (n, 17, c) in the project's order."""
    return poses[:, [names.index(OTHER_NAMES.get(joint, joint.replace(" ", "_"))) for joint in JOINTS]]


@pytest.fixture(scope="module")
def content():
    """{"train": {sequence: {camera: (2D, 3D)}}, "test": {sequence: (2D, 3D, valid, activity)}}, archive's joints.

    x of left joints is positive in 3D, of right ones negative.
    """
    rng = np.random.default_rng(0)

    def poses(names, n):
        side = np.array([1 if "left" in name else -1 if "right" in name else 0 for name in names])
        joint_3d = rng.normal(0, 300, (n, len(names), 3))
        joint_3d[..., 0] = side * (1 + np.abs(joint_3d[..., 0]))
        return rng.uniform(0, 2000, (n, len(names), 2)), joint_3d

    train = {name: {camera: poses(NAMES_28, 6 + number % 3) for camera in CAMERAS} for number, name in enumerate(TRAIN)}
    test = {}
    for number, name in enumerate(TEST):
        joint_2d, joint_3d = poses(NAMES_17, 7 + number)
        valid = np.arange(7 + number) % 3 != 1
        joint_3d[~valid] = np.nan
        test[name] = joint_2d, joint_3d, valid, rng.integers(1, 8, 7 + number)
    return {"train": train, "test": test}


def write_mat_73(path, **variables):
    """As MATLAB 7.3 stores them; arrays are given with HDF5's axes, the opposite of MATLAB's, cells as lists of them."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            if not isinstance(value, list):
                file[name] = value
                continue
            cells = [file.create_dataset(f"#refs#/{name}{number}", data=cell) for number, cell in enumerate(value)]
            file.create_dataset(name, data=[[cell.ref for cell in cells]], dtype=h5py.ref_dtype)
            file[name].attrs["MATLAB_class"] = np.bytes_("cell")
    with open(path, "r+b") as handle:
        handle.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64")


def cells_of(cameras, which):
    """14 arrays (frames, 56 or 84), those of other cameras without a number in them."""
    shape = cameras[0][which].reshape(len(cameras[0][which]), -1).shape
    return [cameras[c][which].reshape(shape) if c in cameras else np.full(shape, np.nan) for c in range(14)]


def write_train_mat(path, cameras, mat_73):
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = {"annot2": cells_of(cameras, 0), "univ_annot3": cells_of(cameras, 1)}
    if mat_73:
        write_mat_73(path, **{name: [np.ascontiguousarray(cell.T) for cell in c] for name, c in cells.items()})
        return
    columns = {name: np.empty((14, 1), object) for name in cells}
    for name, column in columns.items():
        column[:, 0] = cells[name]
    savemat(path, columns | {"frames": np.arange(3)}, do_compression=True)


def write_test_mat(path, joint_2d, joint_3d, valid, activity):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mat_73(
        path,
        annot2=joint_2d[:, None],
        univ_annot3=joint_3d[:, None],
        valid_frame=valid[:, None].astype(float),
        activity_annotation=activity[:, None].astype(float),
    )


def write_npz(folder, content):
    of_28 = [NAMES_28.index(name) for name in NAMES_17]
    train = {
        name: [{str(c): {"data_2d": p2[:, of_28], "data_3d": p3[:, of_28]} for c, (p2, p3) in cameras.items()}, 25]
        for name, cameras in content["train"].items()
    }
    test = {
        name: {"data_2d": p2, "data_3d": p3, "valid": valid.astype(float)}
        for name, (p2, p3, valid, _) in content["test"].items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "data_train_3dhp.npz", data=np.array(train, dtype=object))
    np.savez_compressed(folder / "data_test_3dhp.npz", data=np.array(test, dtype=object))


@pytest.fixture(scope="module")
def layouts(content, tmp_path_factory):
    """The folder with both layouts: archive/ and npz/."""
    folder = tmp_path_factory.mktemp("3dhp")
    for name, cameras in content["train"].items():
        write_train_mat(folder.joinpath("archive", *name.split(), "annot.mat"), cameras, mat_73=name.endswith("2"))
    for name, arrays in content["test"].items():
        write_test_mat(folder / "archive/mpi_inf_3dhp_test_set" / name / "annot_data.mat", *arrays)
    write_npz(folder / "npz", content)
    return folder


def command(*arguments):
    return run_here("tools.convert_3dhp", *arguments)


def npz_options(folder):
    return "--train-npz", folder / "data_train_3dhp.npz", "--test-npz", folder / "data_test_3dhp.npz"


@pytest.fixture(scope="module")
def store(layouts):
    """Made of the archive by the command."""
    target = layouts / "motion3d" / "archive.store"
    done = command(layouts / "archive", "--out", target)
    assert done.returncode == 0, done.stderr
    assert "written" in done.stdout and "train: 888 frames of 128 videos; test: 57 frames of 6 videos" in done.stdout
    assert done.stderr.count("\n") == 16 and "S1/Seq1/annot.mat: has 6 frames, not 6416\n" in done.stderr
    return open_store(target)


def test_the_archive_is_converted(store, content):
    check_store(store.path)
    assert store.cameras == {"2048x2048": (2048, 2048), "1920x1080": (1920, 1080)}
    train, test = store.splits["train"], store.splits["test"]
    assert train.sequences.source.tolist() == [f"{name} cam {camera}" for name in TRAIN for camera in CAMERAS]
    assert set(train.sequences.camera) == {"2048x2048"} and set(train.sequences.action) == {""}
    assert test.sequences.source.tolist() == test.sequences.action.tolist() == TEST
    assert test.sequences.camera.tolist() == ["2048x2048"] * 4 + ["1920x1080"] * 2
    for which, key in enumerate(("joint_2d", "joint_3d")):
        expected = [project_order(poses[which], NAMES_28) for c in content["train"].values() for poses in c.values()]
        np.testing.assert_array_equal(train.arrays[key][:], np.concatenate(expected).astype(np.float32))
        expected = [project_order(poses[which], NAMES_17) for poses in content["test"].values()]
        np.testing.assert_array_equal(test.arrays[key][:], np.concatenate(expected).astype(np.float32))
    assert train.arrays["valid"][:].all() and not train.arrays["activity"][:].any()
    for which, key in ((2, "valid"), (3, "activity")):
        expected = np.concatenate([arrays[which] for arrays in content["test"].values()])
        np.testing.assert_array_equal(test.arrays[key][:], expected)
    types = {key: array.dtype for key, array in test.arrays.items()}
    assert types == {"joint_2d": np.float32, "joint_3d": np.float32, "valid": bool, "activity": np.int8}


def test_left_is_left(store):
    x = store.splits["train"].arrays["joint_3d"][..., 0]
    assert (x[:, LEFT] > 0).all() and (x[:, RIGHT] < 0).all()
    middle = [joint for joint, other in enumerate(FLIPPED) if joint == other]
    assert not x[:, middle].any()


def test_the_npz_files_give_the_same_store_but_for_labels(layouts, store):
    target = layouts / "npz.store"
    done = command(*npz_options(layouts / "npz"), "--out", target)
    assert done.returncode == 0, done.stderr
    made = open_store(target)
    for name, part in made.splits.items():
        for field in ("source", "camera", "action", "start"):
            np.testing.assert_array_equal(getattr(part.sequences, field), getattr(store.splits[name].sequences, field))
        for key in ("joint_2d", "joint_3d", "valid"):
            np.testing.assert_array_equal(part.arrays[key][:], store.splits[name].arrays[key][:])
        assert not part.arrays["activity"][:].any()


def test_a_store_is_written_once(layouts, content, tmp_path):
    folder, target = tmp_path / "npz", tmp_path / "made.store"
    shutil.copytree(layouts / "npz", folder)
    assert "written" in command(*npz_options(folder), "--out", target).stdout
    before = (target / "index.json").stat()
    done = command(*npz_options(folder), "--out", target)
    assert done.returncode == 0 and done.stdout.strip() == f"{target}: is up to date"
    assert (target / "index.json").stat().st_mtime_ns == before.st_mtime_ns
    changed = {**content, "test": {**content["test"], "TS1": content["test"]["TS2"]}}
    write_npz(folder, changed)
    assert "written" in command(*npz_options(folder), "--out", target).stdout


def test_the_test_set_is_found_elsewhere(layouts, tmp_path):
    root, test_root = tmp_path / "here", tmp_path / "there"
    shutil.copytree(layouts / "archive", root / "train")
    (root / "train" / "mpi_inf_3dhp_test_set").rename(test_root)
    with pytest.raises(UserError, match="has none of the folders TS1 to TS6, .* or give its folder by --test-root"):
        Archive(root)
    assert Archive(root, test_root).files["TS6"] == test_root / "TS6" / "annot_data.mat"
    with pytest.raises(UserError, match="has none of the folders S1 to S8"):
        Archive(test_root)


@pytest.mark.parametrize("option", ["ROOT", "--test-root"])
def test_a_root_that_is_no_folder_is_named(layouts, tmp_path, option):
    (tmp_path / "file").touch()
    for name, message in (("absent", "no such folder; "), ("file", "is a file, a folder is needed; ")):
        arguments = [tmp_path / name] if option == "ROOT" else [layouts / "archive", option, tmp_path / name]
        done = command(*arguments, "--out", tmp_path / "made.store")
        assert done.returncode == 2 and done.stderr.startswith(f"error: {tmp_path / name}: {message}")
        assert done.stderr.count("\n") == 1 and "has none of" not in done.stderr


def test_only_the_first_frames_of_a_sequence_are_used(layouts, store, tmp_path, monkeypatch):
    monkeypatch.setitem(mpi3dhp.TRAIN_FRAMES, "S1 Seq1", 4)
    assert convert(Archive(layouts / "archive"), tmp_path / "short.store")
    short, whole = (open_store(path).splits["train"] for path in (tmp_path / "short.store", store.path))
    assert np.diff(short.sequences.start)[:9].tolist() == [4] * 8 + [7]
    for key in ("joint_2d", "joint_3d"):
        np.testing.assert_array_equal(short.arrays[key][4:8], whole.arrays[key][6:10])


# Bad input


def change_annot(content, folder, name, change, mat_73):
    cameras = {camera: tuple(array.copy() for array in arrays) for camera, arrays in content["train"][name].items()}
    write_train_mat(folder.joinpath(*name.split(), "annot.mat"), change(cameras), mat_73)


def with_nan(cameras):
    cameras[5][1][3, 7, 1] = np.nan
    return cameras


def with_17_joints(cameras):
    return {camera: (a[:, :17], b[:, :17]) for camera, (a, b) in cameras.items()}


@pytest.mark.parametrize("name", ["S3 Seq1", "S3 Seq2"])
@pytest.mark.parametrize(
    "change, message",
    [
        (with_nan, r"annot.mat: {name} cam 5: univ_annot3 is not finite in frame 3$"),
        (with_17_joints, r"annot.mat: camera 0: annot2 has shape \(\d, 34\), expected \(\d, 56\)$"),
    ],
)
def test_wrong_values_of_a_training_sequence_are_named(layouts, content, tmp_path, name, change, message):
    shutil.copytree(layouts / "archive", tmp_path / "archive")
    change_annot(content, tmp_path / "archive", name, change, mat_73=name.endswith("2"))
    assert_refused(tmp_path, Archive(tmp_path / "archive"), message.format(name=name))


def test_labels_of_fewer_frames_than_keypoints_are_named(layouts, tmp_path):
    shutil.copytree(layouts / "archive", tmp_path / "archive")
    with h5py.File(tmp_path / "archive" / "S1" / "Seq2" / "annot.mat", "r+") as file:
        reference = file["univ_annot3"][0, 5]
        short = file[reference][:, :-1]
        file["univ_annot3"][0, 5] = file.create_dataset("#refs#/short", data=short).ref
    assert_refused(tmp_path, Archive(tmp_path / "archive"), r"camera 5: univ_annot3 has shape \(6, 84\), expected \(7")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda a: a[0].__setitem__((4, 3, 0), np.inf), "annot_data.mat: TS2: annot2 is not finite in frame 4$"),
        (lambda a: a[1].__setitem__((2, 3, 0), np.nan), "annot_data.mat: TS2: univ_annot3 is not finite in frame 2$"),
        (lambda a: a[3].__setitem__(2, 8), "annot_data.mat: TS2: has activity labels other than 0 to 7$"),
        (lambda a: a.__setitem__(3, a[3][1:]), "TS2: has 7 activity labels, but marks 8 frames as valid or not$"),
        (lambda a: a.__setitem__(2, a[2][1:]), "TS2: has 8 activity labels, but marks 7 frames as valid or not$"),
        (
            lambda a: a.__setitem__(slice(2, 4), [a[2][1:], a[3][1:]]),
            "TS2: has 7 valid frames .*, expected 8, as annot2 and",
        ),
        (lambda a: a.__setitem__(0, a[0][1:]), r"TS2: annot2 has shape \(7, 17, 2\), expected \(8, 17, 2\)$"),
    ],
)
def test_wrong_values_of_a_test_sequence_are_named(layouts, content, tmp_path, change, message):
    shutil.copytree(layouts / "archive", tmp_path / "archive")
    arrays = [array.copy() for array in content["test"]["TS2"]]
    change(arrays)
    write_test_mat(tmp_path / "archive/mpi_inf_3dhp_test_set/TS2/annot_data.mat", *arrays)
    assert_refused(tmp_path, Archive(tmp_path / "archive"), message)


def assert_refused(folder, source, message):
    with pytest.raises(UserError, match=message) as error:
        convert(source, folder / "made.store")
    assert "\n" not in str(error.value)
    assert [path.name for path in folder.iterdir() if "store" in path.name] == []


@pytest.mark.parametrize("name", ["S3/Seq1/annot.mat", "S3/Seq2/annot.mat"])
def test_a_damaged_mat_file_is_named(layouts, tmp_path, name):
    shutil.copytree(layouts / "archive", tmp_path / "archive")
    path = tmp_path / "archive" / name
    whole = path.read_bytes()
    source = Archive(tmp_path / "archive")
    for part in (whole[: len(whole) // 2], whole[:600], b"", b"not a MATLAB file " * 100):
        path.write_bytes(part)
        assert_refused(tmp_path, source, f"{name}: is truncated or not a MATLAB file")
    write_mat_73(path, annot2=np.ones((56, 6)))
    assert_refused(tmp_path, source, f"{name}: 'annot2' holds float64, expected cells")
    write_mat_73(path, annot2=[np.ones((56, 6))] * 5)
    assert_refused(tmp_path, source, f"{name}: 'annot2' has 5 cells, camera 8 is missing")
    write_mat_73(path, annot2=[np.ones((56, 0))] * 14)
    assert_refused(tmp_path, source, f"{name}: S3 Seq{name[6]} cam 0: has no frames")
    write_mat_73(path, annot2=[np.ones((56, 6))] * 14)
    assert_refused(tmp_path, source, f"{name}: lacks 'univ_annot3'")
    savemat(path, {"annot3": np.ones(3)})
    assert_refused(tmp_path, source, f"{name}: lacks 'annot2'")
    path.unlink()
    with pytest.raises(UserError, match=f"{name}: no such file.* all of S1 to S8 are needed"):
        Archive(tmp_path / "archive")


@pytest.mark.parametrize("package, name", [("h5py", "S1 Seq2"), ("scipy", "S1 Seq1")])
def test_a_missing_package_is_named(layouts, tmp_path, monkeypatch, package, name):
    for module in [module for module in sys.modules if module.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    assert_refused(tmp_path, Archive(layouts / "archive"), f"{name[-1]}/annot.mat: .* pip install {package}$")


def load_npz(path):
    return np.load(path, allow_pickle=True)["data"].item()


def put_code_in(folder):
    content = load_npz(folder / "data_test_3dhp.npz")
    content["TS1"]["valid"] = Trap(folder / "trap")
    np.savez_compressed(folder / "data_test_3dhp.npz", data=np.array(content, dtype=object))


def cut(folder):
    path = folder / "data_train_3dhp.npz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edit(part, change):
    def damage(folder):
        path = folder / f"data_{part}_3dhp.npz"
        content = load_npz(path)
        change(content)
        np.savez_compressed(path, data=np.array(content, dtype=object))

    return damage


def in_metres(content):
    for arrays in content["S2 Seq1"][0].values():
        arrays["data_3d"] = arrays["data_3d"] / 1000


def nothing_valid(content):
    for arrays in content.values():
        arrays["valid"] = 0 * arrays["valid"]


def set_nan(content):
    content["S7 Seq2"][0]["8"]["data_3d"][1, 2, 0] = np.nan


@pytest.mark.parametrize(
    "damage, message",
    [
        (put_code_in, "data_test_3dhp.npz: refused: only NumPy arrays and plain containers are read, and it asks for"),
        (cut, "data_train_3dhp.npz: is truncated or not an .npz file"),
        (edit("train", set_nan), "data_train_3dhp.npz: S7 Seq2 cam 8: data_3d is not finite in frame 1"),
        (edit("train", lambda c: c.pop("S4 Seq1")), "data_train_3dhp.npz: lacks 'S4 Seq1'"),
    ],
)
def test_a_bad_npz_file_ends_the_command_and_changes_nothing(layouts, tmp_path, damage, message):
    folder, target = tmp_path / "npz", tmp_path / "made.store"
    shutil.copytree(layouts / "npz", folder)
    with writing(target, {"made_by": mpi3dhp.MADE_BY}, {}) as writer:
        writer.split("train", Sequences.of_frames(["a"], ["b"], ["c"]))
        writer.array("train", "x", "f4", (), [np.ones(1)])
    before = {path: path.read_bytes() for path in target.iterdir()}
    damage(folder)
    done = command(*npz_options(folder), "--out", target)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: ") and message in done.stderr
    assert {path: path.read_bytes() for path in target.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made.store", "npz"]
    assert not (folder / "trap").exists()


@pytest.mark.parametrize(
    "damage, message",
    [
        (edit("train", lambda c: c["S1 Seq1"][0].pop("4")), "train_3dhp.npz: S1 Seq1: lacks '4'$"),
        (edit("train", lambda c: c["S1 Seq1"][0]["4"].pop("data_3d")), "3dhp.npz: S1 Seq1 cam 4: lacks 'data_3d'$"),
        (
            edit("train", in_metres),
            "train_3dhp.npz: S2 Seq1 cam 0: data_3d: pelvis to head top is .* expected poses in mm$",
        ),
        (
            edit("test", lambda c: c["TS5"].update(valid=np.ones(10))),
            "TS5: has 10 valid frames .*, expected 11, as data_2d and",
        ),
        (edit("test", nothing_valid), "data_test_3dhp.npz: no frame of TS1, .* is valid; copy it again$"),
        (
            lambda f: np.save(open(f / "data_test_3dhp.npz", "wb"), np.ones(3)),
            "3dhp.npz: is an .npy file, expected .npz",
        ),
        (edit("train", lambda c: c.update({"S1 Seq1": 5})), r"S1 Seq1 is int, expected \[cameras, fps\]$"),
        (edit("test", lambda c: c["TS5"].pop("valid")), "test_3dhp.npz: TS5: lacks 'valid'$"),
        (edit("test", lambda c: c["TS5"].update(valid=np.full(11, 2))), "TS5: has valid frames other than 0 to 1$"),
        (edit("test", lambda c: c["TS5"].update(data_2d=np.ones((11, 16, 2)))), r"TS5: data_2d has shape \(11, 16, 2"),
        (edit("test", lambda c: c["TS5"].update(data_2d=np.full((11, 17, 2), "x"))), "TS5: data_2d holds <U1, exp"),
        (lambda f: np.savez(f / "data_test_3dhp.npz", other=np.ones(3)), "lacks array 'data'; it has other$"),
        (lambda f: np.savez(f / "data_test_3dhp.npz", data=np.ones(3)), "'data' holds float64, expected objects$"),
        (lambda f: np.savez(f / "data_test_3dhp.npz", data=np.array([1, "x"], object)), "is ndarray, expected a dict"),
        (lambda f: (f / "data_test_3dhp.npz").write_bytes(pickle.dumps({})), "is truncated or not an .npz file"),
    ],
)
def test_a_wrong_npz_layout_is_named(layouts, tmp_path, damage, message):
    folder = tmp_path / "npz"
    shutil.copytree(layouts / "npz", folder)
    damage(folder)
    assert_refused(tmp_path, NpzFiles(folder / "data_train_3dhp.npz", folder / "data_test_3dhp.npz"), message)


def test_a_changed_byte_in_an_npz_file_is_found(layouts, tmp_path):
    """A number that differs, in a pickle that is otherwise whole."""
    folder = tmp_path / "npz"
    shutil.copytree(layouts / "npz", folder)
    path = folder / "data_test_3dhp.npz"
    content = np.load(path, allow_pickle=True)["data"]
    np.savez(path, data=content)
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("data.npy")
    data = bytearray(path.read_bytes())
    data[info.header_offset + 30 + info.file_size // 2] ^= 1
    path.write_bytes(data)
    assert_refused(tmp_path, NpzFiles(folder / "data_train_3dhp.npz", path), "is truncated or not an .npz file")


def test_options_that_do_not_fit_are_refused(layouts, tmp_path):
    (tmp_path / "mine").mkdir()
    for arguments, message in (
        ((), "give either ROOT"),
        (("--train-npz", layouts / "npz/data_train_3dhp.npz"), "both --train-npz and --test-npz"),
        ((layouts / "archive", *npz_options(layouts / "npz")), "give either ROOT"),
        ((tmp_path / "absent", "--out", tmp_path / "new"), "absent: no such folder"),
        ((layouts / "archive", "--out", tmp_path / "mine"), "mine: is there already and is no store"),
    ):
        done = command(*arguments)
        assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


# The reader


def test_a_store_without_a_valid_test_frame_is_refused(store, tmp_path):
    shutil.copytree(store.path, tmp_path / "none.store")
    with open(tmp_path / "none.store" / "test.valid.npy", "wb") as handle:
        np.save(handle, np.zeros(57, bool))
    with pytest.raises(UserError, match="none.store: no test frame that is read is valid; set sample_stride or"):
        DataReader3DHP(5, 2, tmp_path, "none.store")


def reader_of(store, n_frames=5, stride=2, **options):
    return DataReader3DHP(n_frames, stride, store.path.parent, store.path.name, **options)


def test_keypoints_are_normalised_by_width_and_height(store):
    reader = reader_of(store)
    pixels = store.splits["test"].arrays["joint_2d"][:].astype(np.float64)
    keypoints = reader.read_2d("test")
    assert keypoints.dtype == np.float32 and keypoints.shape == (57, 17, 3) and (keypoints[..., 2] == 1).all()
    for rows, width, height in ((slice(0, 34), 2048, 2048), (slice(34, 57), 1920, 1080)):
        expected = np.stack([pixels[rows, :, 0] / width * 2 - 1, pixels[rows, :, 1] / width * 2 - height / width], -1)
        np.testing.assert_allclose(keypoints[rows, :, :2], expected, atol=1e-6)
    assert reader_of(store, read_confidence=False).read_2d("test").shape == (57, 17, 2)


def test_poses_are_in_metres_and_not_root_relative(store):
    poses = reader_of(store).read_3d("train")
    assert poses.dtype == np.float32
    np.testing.assert_allclose(poses, store.splits["train"].arrays["joint_3d"][:] / 1000, rtol=1e-6)
    assert poses[:, 0].any()


@pytest.mark.parametrize("sample_stride", [1, 2])
def test_chosen_rows_are_rows_of_all(store, sample_stride):
    reader = reader_of(store, sample_stride=sample_stride)
    rows = np.array([[0, 5, 6], [13, 20, 3]])
    for read in (reader.read_2d, reader.read_3d):
        np.testing.assert_array_equal(read("test", rows), read("test")[rows])
    for key in ("source", "camera_name", "action", "valid", "activity"):
        everything = reader.array("test", key)
        assert len(everything) == reader.count("test")
        np.testing.assert_array_equal(reader.array("test", key, rows), everything[rows])
    source = np.repeat(TEST, np.arange(7, 13))[::sample_stride]
    np.testing.assert_array_equal(reader.array("test", "source"), source)


def test_clips_stay_in_a_sequence_and_test_clips_hold_every_frame(store):
    reader = reader_of(store, n_frames=5, stride=2)
    train, test = reader.get_split_id()
    assert train.shape[1] == test.shape[1] == 5
    assert reader.get_split_id()[0] is train
    for split, clips in (("train", train), ("test", test)):
        assert (np.diff(clips) == 1).all()
        sources = reader.array(split, "source", clips)
        assert (sources == sources[:, :1]).all()
    assert train[:3, 0].tolist() == [0, 6, 12]  # 6 frames each: one clip
    np.testing.assert_array_equal(np.unique(test), np.arange(57))
    # TS1 has 7 frames; TS4, from row 24 on, has 10.
    assert test[:, 0].tolist() == [0, 2, 7, 10, 15, 19, 24, 29, 34, 39, 40, 45, 50, 52]


def test_a_test_sequence_shorter_than_a_clip_repeats_its_last_frame(store):
    _, test = reader_of(store, n_frames=9).get_split_id()
    assert test[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 6, 6]
    assert test[1].tolist() == [7, 8, 9, 10, 11, 12, 13, 14, 14]
    np.testing.assert_array_equal(np.unique(test), np.arange(57))


@pytest.mark.parametrize("n_frames", [1, 5, 27])
def test_middle_frame_clips_are_centred_on_valid_frames(store, n_frames):
    reader = reader_of(store)
    clips = reader.middle_frame_clips(n_frames)
    assert clips.shape[1] == n_frames
    np.testing.assert_array_equal(clips[:, n_frames // 2], np.flatnonzero(reader.array("test", "valid")))
    sources = reader.array("test", "source", clips)
    assert (sources == sources[:, n_frames // 2, None]).all()
    if n_frames == 5:
        assert clips[0].tolist() == [0, 0, 0, 1, 2]
        assert clips[4].tolist() == [4, 5, 6, 6, 6]  # the last of TS1
        assert clips[5].tolist() == [7, 7, 7, 8, 9]


def test_other_stores_are_refused(tmp_path):
    with writing(tmp_path / "other.store", {"made_by": "a test"}, {}) as writer:
        writer.split("train", Sequences.of_frames(["a"], ["b"], ["c"]))
        writer.array("train", "x", "f4", (), [np.ones(1)])
    with pytest.raises(UserError, match="other.store: 'train' lacks 'joint_2d'.* not a store of MPI-INF-3DHP"):
        DataReader3DHP(5, 2, tmp_path, "other.store")
    with pytest.raises(UserError, match="absent.store: no such store"):
        DataReader3DHP(5, 2, tmp_path, "absent.store")


# Scores


def scored(n=40, seed=0):
    rng = np.random.default_rng(seed)
    target = rng.normal(0, 400, (n, 17, 3))
    predicted = target + rng.normal(0, 60, (n, 17, 3))
    valid = rng.random(n) < 0.7
    predicted[~valid], target[~valid] = np.nan, np.nan
    return predicted, target, valid, np.array(TEST)[rng.integers(0, 3, n)], rng.integers(0, 5, n)


def slow_scores(predicted, target, chosen, joints):
    """MPJPE over 17 joints and over `joints`, PCK and AUC over `joints`, frame by frame and joint by joint."""
    all_errors, errors = [], []
    for frame in chosen:
        for joint in range(17):
            difference = [
                (predicted[frame, joint, k] - predicted[frame, 0, k]) - (target[frame, joint, k] - target[frame, 0, k])
                for k in range(3)
            ]
            error = math.sqrt(sum(d * d for d in difference))
            all_errors.append(error)
            if joint in joints:
                errors.append(error)
    pck = 100 * sum(error < 150 for error in errors) / len(errors)
    auc = sum(100 * sum(error < limit for error in errors) / len(errors) for limit in range(0, 151, 5)) / 31
    return sum(all_errors) / len(all_errors), sum(errors) / len(errors), pck, auc


FOURTEEN = [JOINTS.index(name) for name in JOINTS if name not in ("pelvis", "spine", "nose")]


def test_scores_are_those_of_a_plain_loop():
    predicted, target, valid, sequence, activity = scored()
    scores = evaluate_3dhp(predicted, target, valid, sequence, activity)
    sets = {"overall": (scores.overall, valid)}
    sets |= {name: (score, valid & (sequence == name)) for name, score in scores.per_sequence.items()}
    labels = {name: number for number, name in ACTIVITIES.items()}
    sets |= {name: (score, valid & (activity == labels[name])) for name, score in scores.per_activity.items()}
    assert list(scores.per_sequence) == ["TS1", "TS2", "TS3"]
    assert list(scores.per_activity) == ["standing/walking", "exercising", "sitting", "reaching/crouching"]
    for score, chosen in sets.values():
        frames = np.flatnonzero(chosen)
        mpjpe, _, pck, auc = slow_scores(predicted, target, frames, FOURTEEN)
        assert score.frames == len(frames)
        assert (score.mpjpe, score.pck, score.auc) == pytest.approx((mpjpe, pck, auc), rel=1e-12)
        assert score.p_mpjpe == pytest.approx(p_mpjpe(predicted[frames], target[frames]).mean(), rel=1e-9)
    names = {
        "head": ["head top"],
        "neck": ["thorax"],
        **{f"{part}s": [f"{side} {part}" for side in ("left", "right")]
           for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")},
    }  # fmt: skip
    assert list(scores.per_group) == list(names) == list(JOINT_GROUPS)
    for name, joints in names.items():
        expected = slow_scores(predicted, target, np.flatnonzero(valid), [JOINTS.index(joint) for joint in joints])
        assert tuple(scores.per_group[name]) == pytest.approx(expected[1:], rel=1e-12)


def test_an_error_of_exactly_the_limit_is_not_correct():
    target = np.zeros((1, 17, 3))
    for error, pck, auc in ((0, 100, 30 / 31 * 100), (5, 100, 29 / 31 * 100), (150, 0, 0), (149.5, 100, 100 / 31)):
        predicted = np.zeros((1, 17, 3))
        predicted[0, 1:, 0] = error
        scores = evaluate_3dhp(predicted, target, [True], ["TS1"], [0])
        assert scores.overall.pck == pck and scores.overall.auc == pytest.approx(auc)
        assert scores.overall.mpjpe == pytest.approx(error * 16 / 17)
        assert scores.per_activity == {}


def test_the_joints_that_are_not_scored_do_not_count_for_pck():
    predicted = np.zeros((1, 17, 3))
    predicted[0, [JOINTS.index("spine"), JOINTS.index("nose")]] = 1000
    scores = evaluate_3dhp(predicted, np.zeros((1, 17, 3)), [True], ["TS1"], [1])
    assert scores.overall.pck == 100 and scores.overall.mpjpe > 100


def test_poses_that_cannot_be_scored_are_refused():
    predicted, target, valid, sequence, activity = scored()
    with pytest.raises(ValueError, match="no frame is left"):
        evaluate_3dhp(predicted, target, np.zeros_like(valid), sequence, activity)
    with pytest.raises(ValueError, match=r"predicted: expected \(40, 17, 3\)"):
        evaluate_3dhp(predicted[1:], target, valid, sequence, activity)
    frame = np.flatnonzero(valid)[3]
    predicted[frame, 2, 0] = np.nan
    with pytest.raises(ValueError, match=f"predicted: is not finite in frame {frame}"):
        evaluate_3dhp(predicted, target, valid, sequence, activity)
