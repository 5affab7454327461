"""Motion capture files become 17 joints: files made here, through the command that users start."""

import json
import re
import resource
import signal
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from commands_here import run_here
from conftest import ROOT
from scipy.spatial.transform import Rotation

from lib.body.skeleton import JOINTS, LEFT, LIMBS, RIGHT
from lib.data import store
from lib.data.convert.mocap import convert as conversion
from lib.data.convert.mocap.motion import resample
from lib.errors import UserError
from lib.files import only_one
from tools import convert_cmu

METRES = 0.0254 / 0.45  # per unit of CMU's files

# name: parent, direction, length in the file, axis (degrees), degrees of freedom. Faces +z, left is +x, y is up.
BONES = {
    "lhipjoint": ("root", (0.7, -0.7, 0.2), 2.4, (0, 0, 0), ""),
    "lfemur": ("lhipjoint", (0, -1, 0), 7.5, (0, 0, 0), "rx ry rz"),
    "ltibia": ("lfemur", (0.34202, -0.939693, 0), 7.3, (0, 0, 20), "rx"),
    "rhipjoint": ("root", (-0.7, -0.7, 0.2), 2.4, (0, 0, 0), ""),
    "rfemur": ("rhipjoint", (0, -1, 0), 7.5, (0, 0, 0), "rx ry rz"),
    "rtibia": ("rfemur", (-0.34202, -0.939693, 0), 7.2, (0, 0, -20), "rx"),
    "lowerback": ("root", (0.01, 1, -0.1), 2.0, (0, 0, 0), "rx ry rz"),
    "upperback": ("lowerback", (0.02, 1, 0), 2.1, (10, 0, 5), "rx ry rz"),
    "thorax": ("upperback", (0, 1, 0.05), 2.0, (0, 0, 0), "rx ry rz"),
    "lowerneck": ("thorax", (0, 1, 0.1), 1.7, (0, 0, 0), "rx ry rz"),
    "upperneck": ("lowerneck", (0, 1, -0.1), 1.6, (0, 0, 0), "rx ry rz"),
    "head": ("upperneck", (0, 1, 0), 1.7, (0, 15, 0), "rx ry rz"),
    "lclavicle": ("thorax", (0.9, 0.4, 0), 3.6, (0, 0, 25), "ry rz"),
    "lhumerus": ("lclavicle", (1, 0, 0), 5.0, (180, 30, 90), "rx ry rz"),
    "lradius": ("lhumerus", (1, 0, 0), 3.5, (120, 10, 90), "rx"),
    "rclavicle": ("thorax", (-0.9, 0.4, 0), 3.6, (0, 0, -25), "ry rz"),
    "rhumerus": ("rclavicle", (-1, 0, 0), 5.1, (180, -30, -90), "rz rx ry"),  # another order
    "rradius": ("rhumerus", (-1, 0, 0), 3.4, (120, -10, -90), "rx"),
}
BVH_NAMES = {
    "root": "Hips", "lhipjoint": "LHipJoint", "lfemur": "LeftUpLeg", "ltibia": "LeftLeg", "rhipjoint": "RHipJoint",
    "rfemur": "RightUpLeg", "rtibia": "RightLeg", "lowerback": "LowerBack", "upperback": "Spine", "thorax": "Spine1",
    "lowerneck": "Neck", "upperneck": "Neck1", "head": "Head", "lclavicle": "LeftShoulder", "lhumerus": "LeftArm",
    "lradius": "LeftForeArm", "rclavicle": "RightShoulder", "rhumerus": "RightArm", "rradius": "RightForeArm",
}  # fmt: skip
BVH_LEAVES = {"ltibia": "LeftFoot", "rtibia": "RightFoot", "lradius": "LeftHand", "rradius": "RightHand"}


def vector(name):
    """(3,) of a bone, in the file's unit."""
    if name == "root":
        return np.zeros(3)
    direction = np.array(BONES[name][1], float)
    return direction / np.linalg.norm(direction) * BONES[name][2]


def random_pose(rng):
    """{bone: angles in the order of its degrees of freedom, degrees}; the root's after its place."""
    pose = {name: rng.uniform(-60, 60, len(bone[4].split())) for name, bone in BONES.items() if bone[4]}
    return {"root": np.r_[rng.uniform(-20, 20, 3), rng.uniform(-180, 180, 3)]} | pose


def rest_pose(**angles):
    pose = {"root": np.zeros(6)} | {name: np.zeros(len(bone[4].split())) for name, bone in BONES.items() if bone[4]}
    return pose | {name: np.array(values, float) for name, values in angles.items()}


def write_asf(path):
    lines = ["# made by a test", ":version 1.10", ":name VICON", ":units", "  mass 1.0", "  length 0.45", "  angle deg"]
    lines += [":documentation", "   anything: begin name (1,2)", ":root", "   order TX TY TZ RX RY RZ", "   axis XYZ"]
    lines += ["   position 0 0 0", "   orientation 0 0 0", ":bonedata"]
    for number, (name, (_, direction, length, axis, dof)) in enumerate(BONES.items(), 1):
        lines += [
            "  begin",
            f"     id {number}",
            f"     name {name}",
            f"     direction {' '.join(map(str, direction))}",
        ]
        lines += [f"     length {length}", f"     axis {' '.join(map(str, axis))}  XYZ"]
        if dof:
            lines += [f"    dof {dof}", "    limits (-160.0 20.0)"] + ["           (-70.0 70.0)"] * (
                len(dof.split()) - 1
            )
        lines.append("  end")
    lines += [":hierarchy", "  begin"]
    for parent in ["root", *BONES]:
        children = [name for name, bone in BONES.items() if bone[0] == parent]
        lines += [f"    {parent} {' '.join(children)}"] if children else []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, "  end", ""]))


def write_amc(path, poses):
    lines = ["#!OML:ASF F:\\VICON\\made.ASF", ":FULLY-SPECIFIED", ":DEGREES"]
    for number, pose in enumerate(poses, 1):
        lines.append(str(number))
        lines += [f"{name} {' '.join(f'{v:.9f}' for v in values)}" for name, values in pose.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, ""]))


def local_rotation(name, pose):
    """3x3 of a bone relative to its parent, one matrix of an axis after the other."""

    def about(axis, degrees):
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        return {
            "x": np.array([[1, 0, 0], [0, c, -s], [0, s, c]]),
            "y": np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
            "z": np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]),
        }[axis]

    dof = ["rx", "ry", "rz"] if name == "root" else BONES[name][4].split()
    angles = pose[name][-3:] if name == "root" else pose.get(name, [])
    turned = np.eye(3)
    for channel, angle in zip(dof, angles):
        turned = about(channel[1], angle) @ turned
    x, y, z = (0, 0, 0) if name == "root" else BONES[name][3]
    frame = about("z", z) @ about("y", y) @ about("x", x)
    return frame @ turned @ frame.T


def slow_points(pose):
    """{point: (3,)} of one frame by 4x4 matrices: starts under the bones' names, ends under NAME.end; file's unit."""

    def transform(rotation, offset):
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = rotation, offset
        return matrix

    world = {"root": transform(local_rotation("root", pose), pose["root"][:3])}
    points = {"root": world["root"][:3, 3]}
    for name, bone in BONES.items():
        world[name] = world[bone[0]] @ transform(local_rotation(name, pose), vector(bone[0]))
        points[name] = world[name][:3, 3]
        points[f"{name}.end"] = (world[name] @ np.r_[vector(name), 1])[:3]
    return points


def slow_joints(poses):
    """The 17 joints (n, 17, 3) in m, z up."""
    frames = []
    for pose in poses:
        p = slow_points(pose)
        ahead = np.cross(p["lhumerus"] - p["rhumerus"], p["head.end"] - p["head"])
        joints = [(p["lfemur"] + p["rfemur"]) / 2]
        joints += [p["rfemur"], p["rtibia"], p["rtibia.end"], p["lfemur"], p["ltibia"], p["ltibia.end"]]
        joints += [p["upperback"], (p["lhumerus"] + p["rhumerus"]) / 2]
        joints += [p["head"] + 0.08 / METRES * ahead / np.linalg.norm(ahead)]
        joints += [p["head"] + 1.3 * (p["head.end"] - p["head"])]
        joints += [p["lhumerus"], p["lradius"], p["lradius.end"], p["rhumerus"], p["rradius"], p["rradius.end"]]
        frames.append([(x, -z, y) for x, y, z in np.array(joints) * METRES])
    return np.array(frames)


def write_bvh(path, poses, frame_time="0.0083333"):
    """The same motion as BVH, with the joint names of the usual conversion."""
    moving = ["root"]
    lines = ["HIERARCHY", "ROOT Hips", "{", "OFFSET 0 0 0"]
    lines += ["CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation"]

    def text(values):
        return " ".join(f"{v:.9f}" for v in values)

    def write(parent):
        for name, bone in BONES.items():
            if bone[0] == parent:
                moving.append(name)
                lines.extend([f"JOINT {BVH_NAMES[name]}", "{", f"OFFSET {text(vector(parent))}"])
                lines.append("CHANNELS 3 Zrotation Yrotation Xrotation")
                write(name)
                lines.append("}")
        if parent in BVH_LEAVES:
            moving.append(None)
            lines.extend([f"JOINT {BVH_LEAVES[parent]} {{", f"OFFSET {text(vector(parent))}"])
            lines.extend(["CHANNELS 3 Zrotation Yrotation Xrotation", "End Site", "{", "OFFSET 0 -1 0", "}", "}"])
        elif parent == "head":
            lines.extend(["End Site", "{", f"OFFSET {text(vector(parent))}", "}"])

    write("root")
    lines += ["}", "MOTION", f"Frames: {len(poses)}", f"Frame Time: {frame_time}"]
    for pose in poses:
        turns = [
            Rotation.from_matrix(local_rotation(n, pose) if n else np.eye(3)).as_euler("ZYX", True) for n in moving
        ]
        lines.append(text(np.r_[pose["root"][:3], np.ravel(turns)]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, ""]))


def command(*arguments, **options):
    if not options:
        return run_here("tools.convert_cmu", *arguments)
    program = [sys.executable, str(ROOT / "tools" / "convert_cmu.py"), *map(str, arguments)]
    return subprocess.run(program, capture_output=True, text=True, timeout=120, **options)


def joints_of(folder, part="train"):
    return store.open_store(folder).splits[part].arrays["joints"][:]


@pytest.fixture(scope="module")
def poses():
    rng = np.random.default_rng(0)
    return {
        name: [random_pose(rng) for _ in range(frames)] for name, frames in (("05_01", 9), ("05_02", 4), ("06_01", 5))
    }


@pytest.fixture(scope="module")
def tree(poses, tmp_path_factory):
    """CMU's own layout: subjects/05/05.asf, subjects/05/05_01.amc and so on."""
    root = tmp_path_factory.mktemp("mocap") / "cmu"
    for name, motion in poses.items():
        subject = name[:2]
        write_asf(root / "subjects" / subject / f"{subject}.asf")
        write_amc(root / "subjects" / subject / f"{name}.amc", motion)
    return root


def test_asf_amc_become_a_store(tree, poses, tmp_path):
    (tmp_path / "actions.csv").write_text("name,action\n05_01,walking\n06_01,running\n")
    (tmp_path / "test.txt").write_text("06_01  # a comment\n")
    out = tmp_path / "deep" / "cmu.store"
    options = (tree, "--out", out, "--actions", tmp_path / "actions.csv", "--test", tmp_path / "test.txt")
    result = command(*options)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{out}: 3 clips, 10 frames at 60 fps\n"
    made = store.open_store(out)
    store.check_store(out)
    assert [p.name for p in out.parent.iterdir()] == ["cmu.store"]
    runs = made.splits["train"].sequences
    assert (list(runs.source), list(runs.action), list(runs.camera)) == (["05_01", "05_02"], ["walking", ""], ["", ""])
    assert list(runs.start) == [0, 5, 7]
    assert list(made.splits["test"].sequences.source) == ["06_01"] and list(made.splits["test"].sequences.action) == [
        "running"
    ]
    assert joints_of(out).dtype == np.float32
    for part, names in (("train", ("05_01", "05_02")), ("test", ("06_01",))):
        expected = np.concatenate([slow_joints(poses[name][::2]) for name in names])  # 120 Hz -> 60 Hz
        np.testing.assert_allclose(joints_of(out, part), expected, atol=1e-6)

    before = (out / "index.json").stat().st_mtime_ns
    assert command(*options).stdout == f"{out}: is up to date\n"
    assert (out / "index.json").stat().st_mtime_ns == before
    other = command(*options, "--fps", 120)
    assert other.stdout == f"{out}: 3 clips, 18 frames at 120 fps\n"


def test_bvh_gives_the_same_joints(poses, tmp_path):
    for name, motion in poses.items():
        write_bvh(tmp_path / "bvh" / name[:2] / f"{name}.bvh", motion)
    out = tmp_path / "bvh.store"
    result = command(tmp_path / "bvh", "--out", out)
    assert result.returncode == 0, result.stderr
    expected = np.concatenate([slow_joints(motion[::2]) for motion in poses.values()])
    np.testing.assert_allclose(joints_of(out), expected, atol=2e-6)


def test_simple_poses_by_hand(tmp_path):
    """Standing, turned, a leg back: facing +z of the file is -y here, its left +x is +x."""
    root = tmp_path / "hand"
    write_asf(root / "x.asf")  # the only skeleton there
    moved = [3.0, 16.0, -4.0]
    write_amc(
        root / "hand.amc",
        [rest_pose(root=[*moved, 0, 0, 0]), rest_pose(root=[*moved, 0, 90, 0]), rest_pose(lfemur=[90, 0, 0])],
    )
    out = tmp_path / "hand.store"
    assert command(root, "--out", out, "--fps", 120).returncode == 0
    joints = dict(zip(JOINTS, joints_of(out).transpose(1, 0, 2).astype(float)))
    hip = np.array(BONES["lhipjoint"][1]) / np.linalg.norm(BONES["lhipjoint"][1]) * 2.4  # file's axes and unit
    x, y, z = (np.array([0.0, 0.0, 0.0]) + moved + hip) * METRES
    np.testing.assert_allclose(joints["left hip"][0], [x, -z, y], atol=1e-6)
    np.testing.assert_allclose(joints["left knee"][0] - joints["left hip"][0], [0, 0, -7.5 * METRES], atol=1e-6)
    np.testing.assert_allclose(joints["left knee"][2] - joints["left hip"][2], [0, 7.5 * METRES, 0], atol=1e-6)
    across = joints["left shoulder"] - joints["right shoulder"]
    ahead = joints["nose"] - (joints["thorax"] + joints["head top"]) / 2
    assert across[0, 0] > 0.3 and abs(across[0, 1:]).max() < 1e-6 and ahead[0, 1] < -0.05
    assert across[1, 1] > 0.3 and ahead[1, 0] > 0.05  # turned left: faces +x, left is +y
    heights = [
        joints[name][0, 2] for name in ("left ankle", "left knee", "pelvis", "spine", "thorax", "nose", "head top")
    ]
    assert np.all(np.diff(heights) > 0)


def test_bones_keep_their_lengths_and_sides_do_not_mix(tree, tmp_path):
    out = tmp_path / "cmu.store"
    assert command(tree, "--out", out).returncode == 0
    joints = joints_of(out)
    rigid = [limb for limb in LIMBS if not {7, 9} & set(limb) or limb == (9, 10)]  # the spine and neck bend
    rigid.remove((8, 11)), rigid.remove((8, 14))  # clavicles turn
    for a, b in rigid:
        length = np.linalg.norm(joints[:, a] - joints[:, b], axis=-1)
        assert np.ptp(length) < 1e-6, (JOINTS[a], JOINTS[b])
    for left, right in zip(LEFT, RIGHT):
        assert JOINTS[left] == JOINTS[right].replace("right", "left")
    np.testing.assert_allclose(np.linalg.norm(joints[:, 12] - joints[:, 11], axis=-1), 5.0 * METRES, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(joints[:, 15] - joints[:, 14], axis=-1), 5.1 * METRES, rtol=1e-5)


def test_the_table_means_the_joints_of_the_shipped_motion():
    with np.load(ROOT / "data" / "cmu17_large.npz") as motion:
        joints = motion["joints"][::50] * 1e-4
    for middle, left, right in (("pelvis", "left hip", "right hip"), ("thorax", "left shoulder", "right shoulder")):
        middle, left, right = (joints[:, JOINTS.index(name)] for name in (middle, left, right))
        np.testing.assert_allclose(middle, (left + right) / 2, atol=1.01e-4)
    # The nose is 8 cm ahead of the head bone's start, square to the bone, and the head top lies on the bone's line.
    table = conversion.read_table(conversion.TABLES[".amc"])
    assert table.joints["nose"].metres == 0.08 and table.joints["head top"] == {"head": -0.3, "head.end": 1.3}
    bone = np.sqrt(((joints[:, 10] - joints[:, 9]) ** 2).sum(-1) - 0.08**2) / 1.3 / METRES
    assert (bone > 1.5).all() and (bone < 2.0).all()  # of CMU's skeletons, in their unit


def test_resampling():
    time = np.arange(11) / 100.0
    line = time[:, None] * np.array([1.0, -2.0, 0.5])
    np.testing.assert_array_equal(resample(line, 120.0005, 60), line[::2])
    slow = resample(line, 100, 40)
    np.testing.assert_allclose(slow, np.arange(5)[:, None] / 40 * np.array([1.0, -2.0, 0.5]), atol=1e-12)
    np.testing.assert_allclose(resample(line, 100, 250)[:, 0], np.arange(26) / 250, atol=1e-12)
    assert len(resample(line[:1], 100, 250)) == 1


def test_bvh_position_channels_and_other_orders(tmp_path):
    """Positions add to the root's OFFSET, replace a joint's; rotations multiply in the order listed."""
    (tmp_path / "x.bvh").write_text(
        "HIERARCHY\nROOT a {\nOFFSET 1 0 0\nCHANNELS 6 Yrotation Xrotation Zrotation Xposition Yposition Zposition\n"
        "JOINT b\n{\nOFFSET 9 9 9\nCHANNELS 4 Xposition Yposition Zposition Xrotation\nEnd Site\n{\nOFFSET 0 2 0\n}\n}\n}\n"
        "MOTION\nFrames: 1\nFrame Time: 0.01\n90 90 0 0 5 0 0 0 3 90\n"
    )
    motion = conversion.read_bvh(tmp_path / "x.bvh")
    points = dict(zip(motion.skeleton.names, conversion.point_positions(motion)[0]))
    # Ry(90) Rx(90) takes z to -y, then leaves -y; b's Rx(90) takes y to z first.
    np.testing.assert_allclose(points["a"], [1, 5, 0], atol=1e-12)
    np.testing.assert_allclose(points["b"], [1, 2, 0], atol=1e-12)
    np.testing.assert_allclose(points["b.end"], [1, 0, 0], atol=1e-12)
    assert motion.fps == pytest.approx(100)


def replace(path, old, new, count=1):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def nth_line(path, number, change):
    lines = path.read_text().splitlines()
    lines[number - 1] = change(lines[number - 1])
    path.write_text("\n".join(lines) + "\n")


FRAME = 1 + 1 + sum(bool(bone[4]) for bone in BONES.values())  # lines of a frame: its number, the root, the bones
THIRD = 3 + 2 * FRAME + 1  # the line of the third frame's number


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: (d / "05.asf").unlink(), "05_01.amc: its folder has no ASF file 05.asf"),
        (lambda d: replace(d / "05_01.amc", "\nlowerback ", "\nlowrback "), "line 10: the skeleton has no bone 'lowrback' (did you mean 'lowerback'?)"),
        (lambda d: nth_line(d / "05_01.amc", THIRD + 1, lambda s: s.rsplit(" ", 1)[0]), f"line {THIRD + 1}: 5 values, expected 6"),
        (lambda d: nth_line(d / "05_01.amc", THIRD + 2, lambda s: "lfemur nan 0 0"), f"line {THIRD + 2}: 'nan' is not a finite number"),
        (lambda d: nth_line(d / "05_01.amc", THIRD + 2, lambda s: "lfemur 1 o 0"), f"line {THIRD + 2}: 'o' is not a finite number"),
        (lambda d: nth_line(d / "05_01.amc", THIRD, lambda s: "4"), f"line {THIRD}: '4' where frame '3' was expected"),
        (lambda d: nth_line(d / "05_01.amc", THIRD + 2, lambda s: ""), f"line {THIRD + 3}: 'ltibia' where bone 'lfemur' was expected"),
        (lambda d: nth_line(d / "05_01.amc", 3 + 9 * FRAME, lambda s: ""), "the file ends in the middle of a frame"),
        (lambda d: (d / "05_01.amc").write_text(":FULLY-SPECIFIED\n"), "05_01.amc: has no frames"),
        (lambda d: replace(d / "05.asf", "length 7.5", "length long"), "line 27: 'long' is not a finite number"),
        (lambda d: replace(d / "05.asf", "    lfemur ltibia", "    lfemr ltibia"), "there is no bone 'lfemr' (did you mean 'lfemur'?)"),
        (lambda d: (d / "05.asf").write_text("<html>not found</html>\n"), "05.asf: line 1: '<html>not' before the first section"),
    ],
)  # fmt: skip
def test_bad_acclaim_is_one_line_and_leaves_nothing(spoil, message, poses, tmp_path):
    folder = tmp_path / "in" / "05"
    write_asf(folder / "05.asf")
    write_amc(folder / "05_01.amc", poses["05_01"])
    spoil(folder)
    expect_error(tmp_path, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s[: s.rindex("\n", 0, -1) + 200], "values, expected 72; the file is truncated"),
        (lambda s: s.replace("Frame Time: 0.0083333", "Frame Time: 1e-9"), "Frame Time: 1e-9 s, expected 0.001 to 1"),
        (lambda s: s[: s.rindex("\n", 0, -1) + 1] + "1e42" + s[s.index(" ", s.rindex("\n", 0, -1)) :], "its joints are not finite in frame 4"),
        (lambda s: s[: s.rindex("\n", 0, -1) + 1], "the file ends after 8 of 9 frames"),
        (lambda s: s[:300], "has no MOTION section"),
        (lambda s: s[: s.index("Frame Time")], "ends after MOTION"),
        (lambda s: s.replace("Frames: 9", "Frames: many"), "'many' is not a finite number"),
        (lambda s: s.replace("Zrotation", "Wrotation", 1), "line 5: unknown channel 'Wrotation'"),
        (lambda s: s.replace("OFFSET", "OFSET", 1), "line 4: unknown word 'OFSET'"),
        (lambda s: s.replace("OFFSET 0 0 0\n", "", 1), "05_01.bvh: joint 'Hips' has no OFFSET"),
        (lambda s: s.replace("JOINT LeftUpLeg\n{", "JOINT LeftUpLeg\n{\nCHANNELS 1 Xrotation", 1), "channels are given twice"),
        (lambda s: s.replace("}\nMOTION", "MOTION"), "the hierarchy is not complete"),
        (lambda s: s.rstrip().rsplit(" ", 1)[0] + " nan\n", "'nan' is not a finite number"),
        (lambda s: s.replace("JOINT LeftArm", "JOINT LeftArms"), "joint 'nose': the skeleton has no point 'LeftArm' (did you mean 'LeftArms'?)"),
    ],
)  # fmt: skip
def test_bad_bvh_is_one_line_and_leaves_nothing(change, message, poses, tmp_path):
    path = tmp_path / "in" / "05_01.bvh"
    write_bvh(path, poses["05_01"])
    path.write_text(change(path.read_text()))
    expect_error(tmp_path, message)


def expect_error(folder, message, *options):
    """The command's own `main`, in this process: a start takes most of a second."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(UserError) as raised:
        convert_cmu.main([str(a) for a in (folder / "in", "--out", folder / "out.store", *options)])
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert raised.value.exit_code == 2
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("kind", ["no skeleton", "values of a frame", "truncated BVH", "unknown joint"])
def test_the_command_ends_with_one_line_and_code_2(kind, poses, tmp_path):
    folder = tmp_path / "in"
    options, message = [], "05_01.amc: its folder has no ASF file 05.asf; put the clip's skeleton there"
    if kind == "truncated BVH":
        write_bvh(folder / "05_01.bvh", poses["05_01"])
        text = (folder / "05_01.bvh").read_text()
        (folder / "05_01.bvh").write_text(text[: text.rindex("\n", 0, -1) + 100])
        message = f"line {text.count(chr(10))}: 8 values, expected 72; the file is truncated"
    else:
        write_amc(folder / "05_01.amc", poses["05_01"])
    if kind in ("values of a frame", "unknown joint"):
        write_asf(folder / "05.asf")
    if kind == "values of a frame":
        nth_line(folder / "05_01.amc", THIRD + 1, lambda line: f"{line} 7")
        message = f"line {THIRD + 1}: 7 values, expected 6"
    if kind == "unknown joint":
        (tmp_path / "table.yaml").write_text(conversion.TABLES[".amc"].read_text().replace("lowerback.", "lowrback."))
        options = ["--skeleton", tmp_path / "table.yaml"]
        message = "the skeleton has no point 'lowrback.end' (did you mean 'lowerback.end'?); its table is "
        message += str(tmp_path / "table.yaml")
    before = sorted(tmp_path.rglob("*"))
    result = command(folder, "--out", tmp_path / "out.store", *options)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("error: ") and message in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("right knee: rfemur.end", "right knee: rfemr.end", "joint 'right knee': the skeleton has no point 'rfemr.end' (did you mean 'rfemur.end'?)"),
        ("right knee:", "right kne:", "unknown joint 'right kne' (did you mean 'right knee'?)"),
        ("  right knee: rfemur.end\n", "", "joint 'right knee' is missing"),
        ("up: y", "up: w", "up: input should be 'y' or 'z'"),
        ("fps: 120", "fsp: 120", "fsp: unknown key (did you mean 'fps'?)"),
        ("fps: 120", "", "does not state its frame rate"),
        ("{head: -0.3, head.end: 1.3}", "{head: -0.3, head.end: 1.4}", "head top: the weights sum to 1.1"),
        ("{head: -0.3, head.end: 1.3}", "[head, head.end]", "joints: head top: expected a point, weights of points"),
        ("up: y", "up: [y", "is not YAML"),
        ("up: y", "up: y\nup: z", "is not YAML (key 'up' is given twice)"),
    ],
)  # fmt: skip
def test_bad_skeleton_table(old, new, message, poses, tmp_path):
    write_asf(tmp_path / "in" / "05.asf")
    write_amc(tmp_path / "in" / "05_01.amc", poses["05_01"])
    table = tmp_path / "table.yaml"
    table.write_text((ROOT / "configs" / "skeletons" / "cmu_asf.yaml").read_text())
    replace(table, old, new)
    expect_error(tmp_path, message, "--skeleton", table)


def test_own_table_with_z_up_and_another_unit(poses, tmp_path):
    write_bvh(tmp_path / "in" / "walk.bvh", poses["05_02"], frame_time="0.02")
    text = (ROOT / "configs" / "skeletons" / "cmu_bvh.yaml").read_text()
    text = text.replace("up: y", "up: z").replace("metres_per_unit: 0.056444444444444", "metres_per_unit: 0.01")
    text = text.replace("skip_frames: 0", "skip_frames: 1").replace("metres: 0.08", f"metres: {0.08 / METRES / 100}")
    (tmp_path / "table.yaml").write_text(text)
    result = command(tmp_path / "in", "--out", tmp_path / "o.store", "--skeleton", tmp_path / "table.yaml", "--fps", 50)
    assert result.returncode == 0, result.stderr
    x, y, z = np.moveaxis(slow_joints(poses["05_02"][1:]), -1, 0) / METRES / 100
    np.testing.assert_allclose(joints_of(tmp_path / "o.store"), np.stack([x, z, -y], -1), atol=1e-6)


def test_other_bad_arguments(tree, tmp_path):
    (tmp_path / "in").mkdir()
    expect_error(tmp_path, "has no .amc or .bvh files")
    write_asf(tmp_path / "in" / "05.asf")
    write_amc(tmp_path / "in" / "05_01.amc", [rest_pose()])
    (tmp_path / "list").write_text("05_01\n05_11\n")
    expect_error(
        tmp_path, "list: line 2: there is no clip '05_11' (did you mean '05_01'?)", "--test", tmp_path / "list"
    )
    expect_error(tmp_path, "list: line 1: expected a clip's name and its action", "--actions", tmp_path / "list")
    (tmp_path / "list").write_text("name,action\n05_01,walk\n05_11,run\n")
    expect_error(
        tmp_path, "list: line 3: there is no clip '05_11' (did you mean '05_01'?)", "--actions", tmp_path / "list"
    )
    for value in ("nan", "abc", "1e9", "0"):
        expect_error(tmp_path, "argument --fps: expected a number from 1 to 1000; see --help", "--fps", value)
    write_amc(tmp_path / "in" / "again" / "05_01.amc", [rest_pose()])
    expect_error(tmp_path, "there is another clip of this name")


def test_an_out_that_cannot_be_written_is_named_once(tree, tmp_path):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "o.store"
    result = command(tree, "--out", out)
    assert result.returncode == 2
    assert result.stderr == f"error: {out}: cannot be written (File exists: {tmp_path / 'file'})\n"

    def allow(size):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    out = tmp_path / "o.store"
    for size in (10, 2000):  # too little for what says what the clips are, and for a clip
        result = command(tree, "--out", out, preexec_fn=partial(allow, size))
        assert result.returncode == 2
        assert re.fullmatch(rf"error: {out}: cannot be written \([^/]*\)\n", result.stderr), result.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with only_one(tmp_path / ".o.store.clips"):
        result = command(tree, "--out", out)
    assert result.stderr == f"error: {out}: another process is writing it; wait until that is done\n"


def test_a_byte_order_mark_is_passed_over(poses, tmp_path):
    write_asf(tmp_path / "asf" / "05.asf")
    write_amc(tmp_path / "asf" / "05_02.amc", poses["05_02"])
    write_bvh(tmp_path / "bvh" / "05_02.bvh", poses["05_02"])
    for path in (*(tmp_path / "asf").iterdir(), *(tmp_path / "bvh").iterdir()):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    for kind in ("asf", "bvh"):
        assert conversion.convert(tmp_path / kind, tmp_path / f"{kind}.store").clips == 1


def test_the_skeleton_of_another_subject_is_taken_with_a_warning(poses, tmp_path):
    write_asf(tmp_path / "in" / "05.asf")
    for name in ("05_02", "07_01"):
        write_amc(tmp_path / "in" / f"{name}.amc", poses["05_02"])
    result = command(tmp_path / "in", "--out", tmp_path / "o.store")
    assert result.returncode == 0
    assert result.stderr == f"{tmp_path / 'in' / '07_01.amc'}: its folder has no 07.asf; 05.asf is taken\n"


def test_skip_bad_says_which(poses, tmp_path):
    folder = tmp_path / "in"
    write_asf(folder / "05.asf")
    write_amc(folder / "05_01.amc", poses["05_01"])
    (folder / "05_02.amc").write_text(":DEGREES\n1\nroot 1 2\n")
    result = command(folder, "--out", tmp_path / "o.store", "--skip-bad")
    assert result.returncode == 0, result.stderr
    assert f"skipped {folder / '05_02.amc'}: line 3:" in result.stderr
    assert result.stdout.endswith("1 clips, 5 frames at 60 fps, 1 skipped\n")
    assert list(store.open_store(tmp_path / "o.store").splits) == ["train"]
    (folder / "05_01.amc").write_text("")
    result = command(folder, "--out", tmp_path / "p.store", "--skip-bad")
    assert result.returncode == 2 and "none of its 2 clips can be read" in result.stderr
    assert not list(tmp_path.glob(".*")) and not (tmp_path / "p.store").exists()


def test_an_interrupted_run_goes_on(tree, poses, tmp_path, monkeypatch):
    out, read = tmp_path / "cmu.store", []
    read_clip = conversion.read_clip

    def reader(path, *rest):
        if len(read) == 2 and not resumed:
            raise KeyboardInterrupt
        read.append(path.stem)
        return read_clip(path, *rest)

    monkeypatch.setattr(conversion, "read_clip", reader)
    resumed = False
    with pytest.raises(KeyboardInterrupt):
        conversion.convert(tree, out)
    assert not out.exists()
    resumed = True
    assert conversion.convert(tree, out).written
    assert read == ["05_01", "05_02", "06_01"]  # each once
    assert [p.name for p in tmp_path.iterdir()] == ["cmu.store"]
    expected = np.concatenate([slow_joints(motion[::2]) for motion in poses.values()])
    np.testing.assert_allclose(joints_of(out), expected, atol=1e-6)


def test_provenance_follows_the_content(tree, tmp_path):
    out = tmp_path / "cmu.store"
    copied = tmp_path / "in"
    subprocess.run(["cp", "-r", str(tree), str(copied)], check=True)
    assert conversion.convert(copied, out).written and not conversion.convert(tree, out).written
    described = json.loads((out / "index.json").read_text())["provenance"]["input"]
    files = [p for p in tree.rglob("*") if p.is_file()]
    assert described["files"] == len(files) and described["bytes"] == sum(p.stat().st_size for p in files)
    replace(copied / "subjects" / "05" / "05.asf", "length 7.5", "length 7.6")
    assert conversion.convert(copied, out).written
    with pytest.raises(UserError, match="no such folder"):
        conversion.convert(tmp_path / "absent", out)
