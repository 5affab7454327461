"""Exported poses, read back with other programs' readers: real motion of two people before a made-up camera."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from scipy.spatial.transform import Rotation

from lib.body.skeleton import JOINTS, LIMBS
from lib.data.convert.mocap.bvh import read_bvh
from lib.data.convert.mocap.motion import point_positions
from lib.errors import UserError
from lib.video.export.arrays import SHAPES, read_npz, write_npz
from lib.video.export.bvh import CHILDREN, NAMES, PARENTS, continuous, joint_angles, write_all_bvh, write_bvh
from lib.video.export.tables import write_csv, write_json
from lib.video.poses import Person, Poses

FPS = 60.0
FRAMES = 500
FOCAL = 1100.0
CAMERA_AXES = Rotation.from_euler("x", -100, degrees=True).as_matrix()  # looks ahead and 10 degrees down
CAMERA_PLACE = np.array([0.0, -6.0, 2.0])
MULTIPLE = [child for children in CHILDREN if len(children) > 1 for child in children]
SINGLE = [joint for joint in range(1, 17) if joint not in MULTIPLE]


def cmu(name):
    """Return the world positions (n, 17, 3) of a clip in m, float32, without its first frame."""
    with np.load(ROOT / "data" / "cmu17_large.npz") as motion:
        clip = motion["name"].tolist().index(name)
        rows = slice(motion["start"][clip] + 1, motion["start"][clip + 1])
        return ((motion["root"][rows, None] + motion["joints"][rows].astype(float)) * 1e-4).astype(np.float32)


def make_person(id, frames, world):
    frames = np.asarray(frames)
    world = world[: len(frames)]
    assert len(world) == len(frames)
    camera = (world - CAMERA_PLACE) @ CAMERA_AXES
    pixels = camera[..., :2] / camera[..., 2:] * FOCAL + [960, 540]
    confidence = np.random.default_rng(id).uniform(0, 1, (*world.shape[:2], 1))
    return Person(
        id=id,
        frames=frames,
        keypoints=np.concatenate([pixels, confidence], axis=-1).astype(np.float32),
        bridged=frames % 50 < 3,
        camera=camera.astype(np.float32),
        world=world,
    )


@pytest.fixture(scope="module")
def poses():
    """Person 1 jumps in frames 5 to 124; person 7 directs traffic, with gaps and a frame alone."""
    frames = np.r_[20:120, 150, 200:400]
    return Poses(
        source='walk "1" é.mp4',
        times=np.arange(FRAMES) / FPS,
        width=1920,
        height=1080,
        focal=FOCAL,
        rotation=CAMERA_AXES,
        shift=CAMERA_PLACE,
        people=[
            make_person(1, range(5, 125), cmu("cmu_train_jumping_5")),
            make_person(7, frames, cmu("cmu_train_directing_traffic_1")),
        ],
    )


def with_people(poses, people):
    return Poses(poses.source, poses.times, poses.width, poses.height, poses.focal, poses.rotation, poses.shift, people)


def assert_same(a, b):
    assert (a.source, a.width, a.height, a.focal, a.fps) == (b.source, b.width, b.height, b.focal, b.fps)
    for name in ("times", "rotation", "shift"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert [person.id for person in a.people] == [person.id for person in b.people]
    for first, second in zip(a.people, b.people):
        for name in SHAPES:
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
            assert getattr(first, name).dtype == getattr(second, name).dtype


def test_npz_round_trip(poses, tmp_path):
    write_npz(poses, tmp_path / "made" / "poses.npz")
    assert_same(read_npz(tmp_path / "made" / "poses.npz"), poses)
    with np.load(tmp_path / "made" / "poses.npz", allow_pickle=False) as arrays:
        assert arrays["joints"].tolist() == list(JOINTS) and arrays["limbs"].tolist() == [list(limb) for limb in LIMBS]
        assert arrays["person_ids"].tolist() == [1, 7] and arrays["fps"] == pytest.approx(FPS)
        np.testing.assert_array_equal(arrays["person_7_world"], poses.people[1].world)
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["poses.npz"]


def test_npz_of_many_blocks_and_of_views_that_are_not_contiguous(poses, tmp_path):
    many = np.tile(poses.people[1].world, (30, 1, 1))  # 9030 frames
    mirrored = np.asfortranarray(many)[:, :, ::-1]
    person = Person(1, np.arange(len(many)), many, np.zeros(len(many), bool), mirrored, many[::-1])
    long = with_people(poses, [person])
    write_npz(long, tmp_path / "poses.npz")
    assert_same(read_npz(tmp_path / "poses.npz"), long)


def test_nobody(poses, tmp_path):
    empty = with_people(poses, [])
    write_npz(empty, tmp_path / "poses.npz")
    write_json(empty, tmp_path / "poses.json")
    write_csv(empty, tmp_path / "poses.csv")
    assert_same(read_npz(tmp_path / "poses.npz"), empty)
    assert json.loads((tmp_path / "poses.json").read_text())["people"] == []
    assert len((tmp_path / "poses.csv").read_text().splitlines()) == 1
    assert write_all_bvh(empty, tmp_path) == []


def test_damaged_npz_is_a_users_error(poses, tmp_path):
    path = tmp_path / "poses.npz"
    write_npz(poses, path)
    whole = path.read_bytes()
    middle = len(whole) // 2
    for content in (b"", b"text", whole[:middle], whole[:middle] + bytes(200) + whole[middle + 200 :]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"poses\.npz: (is truncated or not an \.npz file|holds no exported poses)"):
            read_npz(path)
    arrays = {"format_version": 1, "size": (1, 2), "source": "", "times": [0.0], "focal": 1.0, "rotation": np.eye(3)}
    for change, message in (
        ({"format_version": 2}, "has format 2, this program reads format 1"),
        ({}, "shift is missing"),
        ({"shift": np.zeros(2)}, r"shift has shape \(2,\), expected \(3,\)"),
    ):
        np.savez(path, **arrays | change)
        with pytest.raises(UserError, match=message):
            read_npz(path)
    with pytest.raises(UserError, match="no such file"):
        read_npz(tmp_path / "other.npz")


def test_json(poses, tmp_path):
    write_json(poses, tmp_path / "poses.json")
    with open(tmp_path / "poses.json", encoding="utf-8") as file:
        content = json.load(file)
    people = content.pop("people")
    assert content == {
        "format_version": 1,
        "source": poses.source,
        "fps": pytest.approx(FPS),
        "frame_count": FRAMES,
        "size": [1920, 1080],
        "focal": FOCAL,
        "rotation": CAMERA_AXES.tolist(),
        "shift": CAMERA_PLACE.tolist(),
        "joints": list(JOINTS),
        "limbs": [list(limb) for limb in LIMBS],
    }
    assert [(one["id"], len(one["frames"])) for one in people] == [(1, 120), (7, 301)]
    for one, person in zip(people, poses.people):
        rows = one["frames"]
        assert set(rows[0]) == {"frame", "time", "bridged", "keypoints", "camera", "world"}
        assert [row["frame"] for row in rows] == person.frames.tolist()
        assert [row["bridged"] for row in rows] == person.bridged.tolist()
        np.testing.assert_allclose([row["time"] for row in rows], poses.times[person.frames], atol=5.1e-7)
        keypoints = np.array([row["keypoints"] for row in rows])
        np.testing.assert_allclose(keypoints[..., :2], person.keypoints[..., :2], atol=0.0501)
        np.testing.assert_allclose(keypoints[..., 2], person.keypoints[..., 2], atol=5.1e-4)
        for name in ("camera", "world"):
            np.testing.assert_allclose([row[name] for row in rows], getattr(person, name), atol=5.1e-5)
    lines = (tmp_path / "poses.json").read_text().splitlines()
    assert sum(line.startswith('{"frame": ') for line in lines) == 421
    assert all(json.loads(line.rstrip(",")) for line in lines if line.startswith('{"frame": '))


def test_csv(poses, tmp_path):
    write_csv(poses, tmp_path / "poses.csv")
    with open(tmp_path / "poses.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:10] == "person frame time bridged".split() + [
        f"pelvis_{value}" for value in ("x", "y", "z", "pixel_x", "pixel_y", "confidence")
    ]
    assert len(rows[0]) == 4 + 6 * 17 and None not in rows[0]
    assert [int(row["person"]) for row in rows] == [1] * 120 + [7] * 301
    table = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    frames, bridged, keypoints, world = (
        np.concatenate([getattr(person, name) for person in poses.people])
        for name in ("frames", "bridged", "keypoints", "world")
    )
    np.testing.assert_array_equal(table["frame"], frames)
    np.testing.assert_array_equal(table["bridged"], bridged)
    np.testing.assert_allclose(table["time"], poses.times[frames], atol=5.1e-7)
    for joint, name in enumerate(JOINTS):
        name = name.replace(" ", "_")
        for axis in range(3):
            np.testing.assert_allclose(table[f"{name}_{'xyz'[axis]}"], world[:, joint, axis], atol=5.1e-5)
        for axis, value, tolerance in ((0, "pixel_x", 0.0501), (1, "pixel_y", 0.0501), (2, "confidence", 5.1e-4)):
            np.testing.assert_allclose(table[f"{name}_{value}"], keypoints[:, joint, axis], atol=tolerance)


def to_world(places):
    """World positions in m of BVH positions (..., 3) in cm, y up."""
    return np.stack([places[..., 0], -places[..., 2], places[..., 1]], axis=-1) / 100


def bones(positions):
    """(n, 16, 3), of joints 1 to 16."""
    return positions[:, 1:] - positions[:, list(PARENTS[1:])]


def degrees_between(a, b):
    cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


@pytest.mark.parametrize("clip", ["cmu_train_running_1", "cmu_train_directing_traffic_1", "cmu_train_jumping_5"])
def test_bvh_moves_as_the_poses_do(poses, tmp_path, clip):
    world = cmu(clip)
    person = make_person(1, np.arange(len(world)), world)
    write_bvh(person, slice(0, len(world)), poses, tmp_path / "person.bvh")
    motion = read_bvh(tmp_path / "person.bvh")
    assert motion.fps == pytest.approx(FPS, rel=1e-6) and motion.frames == len(world)
    ends = [name for name in motion.skeleton.names if name.endswith(".end")]
    assert tuple(name for name in motion.skeleton.names if name not in ends) == NAMES and len(ends) == 5
    positions = to_world(point_positions(motion))[:, [motion.skeleton.names.index(name) for name in NAMES]]

    lengths = np.linalg.norm(bones(positions), axis=-1)
    assert np.ptp(lengths, axis=0).max() < 1e-6
    np.testing.assert_allclose(lengths[0], np.median(np.linalg.norm(bones(world), axis=-1), axis=0), atol=1e-5)
    np.testing.assert_allclose(positions[:, 0], world[:, 0], atol=1e-5)

    angles = degrees_between(bones(positions), bones(world))
    assert angles[:, np.array(SINGLE) - 1].max() < 0.1  # the format's four decimals, and float32 poses
    assert angles[:, np.array(MULTIPLE) - 1].mean() < 5  # they turn as one
    assert np.linalg.norm(positions - world, axis=-1).mean() < 0.010


def test_bvh_rests_in_a_t_pose_that_faces_ahead(poses, tmp_path):
    write_bvh(poses.people[0], slice(0, 120), poses, tmp_path / "person.bvh")
    skeleton = read_bvh(tmp_path / "person.bvh").skeleton
    rest = np.zeros((len(skeleton.names), 3))
    for point, parent in enumerate(skeleton.parents):
        rest[point] = skeleton.offsets[point] + (rest[parent] if parent >= 0 else 0)
    place = dict(zip(skeleton.names, rest))
    assert place["pelvis"].tolist() == [0, 0, 0]
    for side, sign in (("left", 1), ("right", -1)):
        hip, knee, ankle, toe = (place[f"{side}_{name}"] for name in ("hip", "knee", "ankle", "ankle.end"))
        assert 5 < sign * hip[0] < 15 and hip[1] > knee[1] + 30 > ankle[1] + 60 and toe[2] > ankle[2] + 5
        shoulder, elbow, wrist, hand = (place[f"{side}_{n}"] for n in ("shoulder", "elbow", "wrist", "wrist.end"))
        assert 10 < sign * shoulder[0] < sign * elbow[0] < sign * wrist[0] < sign * hand[0]
        assert shoulder[1] == pytest.approx(wrist[1], abs=1e-4)
    assert place["head_top"][1] > place["nose"][1] > place["thorax"][1] > place["spine"][1] > 15
    assert place["nose"][2] > place["thorax"][2]


def test_bvh_read_by_bvhio(poses, tmp_path):
    bvhio = pytest.importorskip("bvhio")
    person = poses.people[1]
    segment = person.segments()[2]
    write_bvh(person, segment, poses, tmp_path / "person.bvh")
    container = bvhio.readAsBvh(str(tmp_path / "person.bvh"))
    assert container.FrameCount == 200 and container.FrameTime == pytest.approx(1 / FPS, abs=1e-7)
    root = bvhio.convertBvhToHierarchy(container.Root).loadRestPose(recursive=True)
    motion = read_bvh(tmp_path / "person.bvh")
    own = point_positions(motion)[:, [motion.skeleton.names.index(name) for name in NAMES]]
    for frame in range(0, 200, 20):
        root.loadPose(frame)
        joints = {joint.Name: np.array(joint.PositionWorld) for joint, _, _ in root.layout()}
        read = np.array([joints[name] for name in NAMES])
        np.testing.assert_allclose(read, own[frame], atol=0.01)  # cm; it computes in float32
        assert np.linalg.norm(to_world(read) - person.world[segment][frame], axis=-1).mean() < 0.020


def curves(path):
    """(n, channels) of a BVH file."""
    return np.loadtxt(path.read_text().split("Frame Time:")[1].splitlines()[1:])


def test_bvh_curves_do_not_jump(poses, tmp_path):
    world = cmu("cmu_train_directing_traffic_1")  # its pelvis turns by up to 91 degrees a frame
    write_bvh(make_person(1, np.arange(len(world)), world), slice(0, len(world)), poses, tmp_path / "person.bvh")
    steps = np.abs(np.diff(curves(tmp_path / "person.bvh")[:, 3:], axis=0))
    assert steps.max() < 150


def test_curves_go_on_over_whole_turns_and_upside_down():
    turn = np.radians(np.arange(0, 1440, 7.3))
    for axis in range(3):
        angles = np.zeros((len(turn), 17, 3))
        angles[..., axis] = turn[:, None]
        principal = Rotation.from_euler("YXZ", angles.reshape(-1, 3)).as_euler("YXZ").reshape(angles.shape)
        np.testing.assert_allclose(continuous(principal, np.zeros((17, 3))), angles, atol=1e-9)


def test_limbs_that_fold_back_or_have_no_length():
    places = np.zeros((4, 17, 3))
    rest = np.zeros((17, 3))
    for joint in range(1, 17):
        rest[joint] = [0, 10, 0] if joint not in (4, 11) else [10, 0, 0]
        places[1:, joint] = places[1:, PARENTS[joint]] + rest[joint] * (-1 if joint == 3 else 1)
    angles = joint_angles(places, rest)  # the first has all joints in one place
    assert np.isfinite(angles).all()
    shin = Rotation.from_euler("YXZ", angles[1:, 2]).apply(rest[3])
    np.testing.assert_allclose(shin, places[1:, 3] - places[1:, 2], atol=1e-6)


def test_all_bvh_are_named_by_person_and_first_frame(poses, tmp_path):
    paths = write_all_bvh(poses, tmp_path / "bvh")
    names = ["person_1.bvh", "person_7.bvh", "person_7_from_frame_000200.bvh"]
    assert paths == [tmp_path / "bvh" / name for name in names]
    assert [read_bvh(path).frames for path in paths] == [120, 100, 200]
    first, second = (read_bvh(path).skeleton.offsets for path in paths[1:])
    np.testing.assert_array_equal(first, second)  # one body in all of a person's files
    assert sorted(path.name for path in (tmp_path / "bvh").iterdir()) == names


@pytest.mark.parametrize("write", [write_npz, write_json, write_csv, write_all_bvh])
def test_target_that_cannot_be_written_is_a_users_error(poses, tmp_path, write):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write(poses, tmp_path / "file" / "inside")
    folder = tmp_path / "out"
    (folder / "person_1.bvh").mkdir(parents=True)
    with pytest.raises(UserError, match=r"cannot be written \(Is a directory\)"):
        write(poses, folder)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "out", "person_1.bvh"]


MEASURE_MEMORY = """
import sys, threading
from pathlib import Path
import numpy as np
from lib.video.export.arrays import write_npz
from lib.video.export.bvh import write_all_bvh
from lib.video.export.tables import write_csv, write_json
from lib.video.poses import Person, Poses

folder, count = Path(sys.argv[1]), int(sys.argv[2])
arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("keypoints", "camera", "world")]
person = Person(1, np.arange(count), arrays[0], np.zeros(count, bool), *arrays[1:])
poses = Poses("long.mp4", np.arange(count) / 60, 1920, 1080, 1000.0, np.eye(3), np.zeros(3), [person])

def used():
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) / 1024

def growth(work):
    before, peak, done = used(), [0], threading.Event()
    def watch():
        while not done.wait(0.005):
            peak[0] = max(peak[0], used())
    watcher = threading.Thread(target=watch)
    watcher.start()
    kept = work()
    done.set()
    watcher.join()
    return max(peak[0], used()) - before

small = Person(1, person.frames[:5000], *(a[:5000] for a in (arrays[0], person.bridged, *arrays[1:])))
writers = (write_npz, write_json, write_csv, write_all_bvh)
for write in writers:  # what a first call loads is not growth
    write(Poses("", poses.times, 1, 1, 1.0, np.eye(3), np.zeros(3), [small]), folder / "out" / write.__name__)
for write in writers:
    print(growth(lambda: write(poses, folder / "out" / write.__name__)))
print(growth(lambda: [np.array(array) for array in arrays]))
"""


def test_memory_does_not_grow_with_the_videos_length(tmp_path):
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    count = 60_000
    block = np.tile(cmu("cmu_train_directing_traffic_1")[:400], (25, 1, 1))
    for name in ("keypoints", "camera", "world"):
        array = np.lib.format.open_memmap(tmp_path / f"{name}.npy", "w+", np.float32, (count, 17, 3))
        for start in range(0, count, len(block)):
            array[start : start + len(block)] = block
        array.flush()
    result = subprocess.run(
        [sys.executable, "-c", MEASURE_MEMORY, str(tmp_path), str(count)], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    *writers, everything = map(float, result.stdout.split())
    assert everything > 30  # MiB: what loading the arrays would take
    assert max(writers) < 12
