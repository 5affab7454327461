"""Writer of BVH files, which Blender and other animation programs import.

Unit: cm. Axes: y up, the rest pose (a T-pose) faces +z, the person's left is +x; the world's (x, y, z) is written as
(x, z, -y). Blender's default for BVH, "-Z forward, Y up", turns that into its own axes, which are the world's; its
option Scale takes 0.01 for metres. A bone's length is its median over the person's track. The three bones of the
pelvis and of the thorax turn as one, by least squares; every other bone points exactly where the pose has it. How a
limb twists about its own axis is not in the poses: it follows its parent by the shortest turn. What lies beyond the
wrists, the ankles and the head top is there only because the format asks for it.
"""

import warnings
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from lib.body.skeleton import JOINTS, LIMBS, ROOT, limb_vectors
from lib.files import atomic_path

CENTIMETRES = 100  # per m
ORDER = "YXZ"  # of the rotation channels, and so of the product of the turns
SAMPLES = 4000  # frames from which bones are measured
BLOCK = 1024  # frames held at once
LEAST_FRAMES = 2  # of a motion

PARENTS = (-1, *(parent for parent, _ in LIMBS))  # of LIMBS' second joints, which are 1 to 16, depth first
CHILDREN = tuple(tuple(child for parent, child in LIMBS if parent == joint) for joint in range(len(JOINTS)))
NAMES = tuple(name.replace(" ", "_") for name in JOINTS)

PELVIS, SPINE, THORAX, HEAD = ROOT, 7, 8, 10
RIGHT_HIP, LEFT_HIP, LEFT_SHOULDER, RIGHT_SHOULDER = 1, 4, 11, 14
# Directions from the parent in the rest pose; those not here are measured.
STRAIGHT = {
    2: (0, -1, 0), 3: (0, -1, 0), 5: (0, -1, 0), 6: (0, -1, 0), 8: (0, 1, 0),
    12: (1, 0, 0), 13: (1, 0, 0), 15: (-1, 0, 0), 16: (-1, 0, 0),
}  # fmt: skip
ENDS = {3: (0, 0, 12), 6: (0, 0, 12), 10: (0, 4, 0), 13: (8, 0, 0), 16: (-8, 0, 0)}  # cm


def write_all_bvh(poses, folder):
    """Write each person's unbroken motions: the first as person_1.bvh, others as person_1_from_frame_000123.bvh.

    Segments of a single frame are left out.

    Returns:
        The paths, in order.

    Raises:
        UserError: a file cannot be written.
    """
    paths = []
    for person in poses.people:
        motions = [segment for segment in person.segments() if segment.stop - segment.start >= LEAST_FRAMES]
        for number, segment in enumerate(motions):
            later = f"_from_frame_{person.frames[segment.start]:06d}" if number else ""
            paths.append(Path(folder) / f"person_{person.id}{later}.bvh")
            write_bvh(person, segment, poses, paths[-1])
    return paths


def write_bvh(person, segment, poses, path):
    """Write one motion of a person atomically; its first frame is the file's first.

    Args:
        person: one of `poses`.
        segment: a slice of the person's arrays, in which frames follow each other.

    Raises:
        UserError: the file cannot be written.
    """
    rest = rest_offsets(person)
    count = segment.stop - segment.start
    with atomic_path(path) as temporary, open(temporary, "w", encoding="ascii", newline="\n") as file:
        file.write("HIERARCHY\n")
        file.writelines(f"{line}\n" for line in _hierarchy(rest, ROOT, ""))
        file.write(f"MOTION\nFrames: {count}\nFrame Time: {1 / poses.fps:.8f}\n")
        row = " ".join(["%.4f"] * (3 + 3 * len(JOINTS))) + "\n"
        before = np.zeros((len(JOINTS), 3))
        for start in range(segment.start, segment.stop, BLOCK):
            places = _to_bvh(person.world[start : min(start + BLOCK, segment.stop)])
            angles = continuous(joint_angles(places, rest), before)
            before = angles[-1]
            values = np.concatenate([places[:, ROOT], np.degrees(angles).reshape(len(angles), -1)], axis=1)
            file.writelines(row % tuple(frame) for frame in values.tolist())


def _to_bvh(world):
    """Return world positions (..., 3) in m as (..., 3) in cm, y up."""
    return np.stack([world[..., 0], world[..., 2], -world[..., 1]], axis=-1).astype(float) * CENTIMETRES


def _bones(places):
    """Return vectors (n, 17, 3) to each joint of `places` from its parent; zero for the root."""
    return np.concatenate([np.zeros_like(places[:, :1]), limb_vectors(places)], axis=1)


def rest_offsets(person):
    """Return offsets (17, 3) in cm of the joints from their parents in the rest pose.

    Where several bones leave the pelvis and the thorax, and how the head sits, is the person's median too.
    """
    bones = _bones(_to_bvh(person.world[:: -(-len(person.world) // SAMPLES)]))
    pelvis = _frames(bones[:, LEFT_HIP] - bones[:, RIGHT_HIP], bones[:, SPINE])
    chest = _frames(bones[:, LEFT_SHOULDER] - bones[:, RIGHT_SHOULDER], bones[:, THORAX])
    within = {joint: pelvis for joint in CHILDREN[PELVIS]} | {joint: chest for joint in (*CHILDREN[THORAX], HEAD)}
    rest = np.zeros((len(JOINTS), 3))
    for joint in range(1, len(JOINTS)):
        if joint in STRAIGHT:
            direction = np.array(STRAIGHT[joint], float)
        else:
            direction = _unit(np.median(np.einsum("nij,nj->ni", within[joint], bones[:, joint]), axis=0))
        rest[joint] = direction * np.median(np.linalg.norm(bones[:, joint], axis=-1))
    return rest


def _unit(vectors):
    """Return vectors (..., 3) scaled to length 1; zero stays zero."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(min=1e-12)


def _frames(left, up):
    """Return the axes (n, 3, 3) of a body part, rows left, up and forward, from left (n, 3) and nearly up (n, 3)."""
    left = _unit(left)
    forward = _unit(np.cross(left, up))
    return np.stack([left, np.cross(forward, left), forward], axis=1)


def joint_angles(places, rest):
    """Return rotations (n, 17, 3) in radians, as `ORDER`, of the joints relative to their parents for places (n, 17, 3)."""
    bones = _bones(places)
    turned, angles = [], []
    for joint, parent in enumerate(PARENTS):
        children = list(CHILDREN[joint])
        above = turned[parent] if parent >= 0 else Rotation.identity(len(places))
        if len(children) > 1:
            own = above.inv() * _best_fit(rest[children], bones[:, children])
        elif children:
            own = _shortest_turns(_unit(rest[children[0]]), _unit(above.inv().apply(bones[:, children[0]])))
        else:
            own = Rotation.identity(len(places))
        turned.append(above * own)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # gimbal lock: the angles found are right
            angles.append(own.as_euler(ORDER))
    return np.stack(angles, axis=1)


def _best_fit(rest, bones):
    """Return the rotations (n) that bring rest (k, 3) nearest to bones (n, k, 3), by least squares (Kabsch)."""
    u, _, v = np.linalg.svd(np.einsum("nki,kj->nij", bones, rest))
    u[..., 2] *= np.linalg.det(u @ v)[:, None]
    return Rotation.from_matrix(u @ v)


def _shortest_turns(start, ends):
    """Return the shortest rotations (n) from direction start (3,) to directions ends (n, 3)."""
    cosine = ends @ start
    axis = np.cross(start, ends)
    axis[cosine < -1 + 1e-9] = np.cross(start, np.eye(3)[np.abs(start).argmin()])  # half a turn: any axis will do
    return Rotation.from_quat(np.concatenate([axis, 1 + cosine[:, None]], axis=1))


def continuous(angles, before):
    """Return the same rotations as angles (n, 17, 3) in radians without jumps, continuing from before (17, 3).

    Angles (a, b, c) turn as (a + pi, pi - b, c + pi) do, and whole turns change nothing.
    """
    angles = np.concatenate([before[None], angles])
    other = angles * [1, -1, 1] + np.pi
    stay, change = (
        (np.remainder(choice[1:] - angles[:-1] + np.pi, 2 * np.pi) - np.pi) ** 2 for choice in (angles, other)
    )
    changed = np.cumsum(change.sum(-1) < stay.sum(-1), axis=0) % 2 == 1
    angles[1:] = np.where(changed[..., None], other[1:], angles[1:])
    return np.unwrap(angles, axis=0)[1:]


def _hierarchy(rest, joint, indent):
    """Yield the lines of a joint and of all below it."""
    offset = "{}\tOFFSET {:.6f} {:.6f} {:.6f}"
    turns = " ".join(f"{axis}rotation" for axis in ORDER)
    yield f"{indent}{'ROOT' if joint == ROOT else 'JOINT'} {NAMES[joint]}"
    yield f"{indent}{{"
    yield offset.format(indent, *rest[joint])
    if joint == ROOT:
        yield f"{indent}\tCHANNELS 6 Xposition Yposition Zposition {turns}"
    else:
        yield f"{indent}\tCHANNELS 3 {turns}"
    for child in CHILDREN[joint]:
        yield from _hierarchy(rest, child, indent + "\t")
    if joint in ENDS:
        yield from (f"{indent}\tEnd Site", f"{indent}\t{{", offset.format(indent + "\t", *ENDS[joint]), f"{indent}\t}}")
    yield f"{indent}}}"
