"""Body of any shape (data/body.npz) in the pose of 17 joints: skinned vertices, and the positions of its own joints.

Shape and pose are independent: each segment of the body takes its direction from the joints and keeps its own length. So
the joints of the motion and of the body differ, and the body's own are the ground truth of rendered images.
"""

from typing import NamedTuple

import numpy as np

from lib.body.layouts import MEANS
from lib.body.skeleton import JOINTS
from lib.data.npz_files import read_npz
from lib.data.synthetic.coarse import merge_near
from lib.files import PROJECT

FILE = PROJECT / "data" / "body.npz"
COEFFICIENTS = 16  # of a shape
_ARRAYS = ("faces", "w", "i", "kp", "mean", "basis")  # triangles; skinning weights and bones; points; mean shape; basis

_CUT = 2.0  # std: larger coefficients give no realistic bodies
_HINGE = 3.0  # weight of a bent limb's plane against the parent's orientation; a straight limb has no plane
_FINE, _FINER = ("head", "left hand", "right hand"), 0.6  # segments with small detail; their cells' share of a cell
_NOSE = 0  # of the points on the surface (COCO's and feet)

SEGMENTS = (
    "pelvis", "waist", "chest", "neck", "head",
    "left upper arm", "left forearm", "left hand", "right upper arm", "right forearm", "right hand",
    "left thigh", "left shin", "left foot", "right thigh", "right shin", "right foot",
)  # fmt: skip
SOMEONE, THING, NOTHING = 253, 254, 255  # in a segmentation: another person, a thing, the background

_LIMBS = {  # segment, its child: first joint, joint between, last joint; parent; bones at the joints; of both segments
    ("left upper arm", "left forearm"): ((11, 12, 13), "chest", (48, 50, 52), (48, 49), (50, 51)),
    ("right upper arm", "right forearm"): ((14, 15, 16), "chest", (74, 76, 78), (74, 75), (76, 77)),
    ("left thigh", "left shin"): ((4, 5, 6), "pelvis", (2, 4, 6), (2, 3), (4, 5)),
    ("right thigh", "right shin"): ((1, 2, 3), "pelvis", (22, 24, 26), (22, 23), (24, 25)),
}
_ENDS = {  # segments that rotate with another: that one, their bones
    "left hand": ("left forearm", range(52, 72)), "right hand": ("right forearm", range(78, 98)),
    "left foot": ("left shin", range(6, 21)), "right foot": ("right shin", range(26, 41)),
}  # fmt: skip
_TRUNK = {  # segment: its bones; it rotates about the head of the first
    "pelvis": (0, 1, 21, 41), "waist": (42, 43), "chest": (44, 45, 46, 47, 72, 73), "neck": (98, 99),
    "head": (100, 101, 102, 103),
}  # fmt: skip
_PARENTS = {"waist": "pelvis", "chest": "waist", "neck": "chest", "head": "neck"}
_LEFT_HIP, _RIGHT_HIP, _LEFT_SHOULDER, _RIGHT_SHOULDER, _WAIST, _NECK = 2, 22, 48, 74, 43, 98
_JOINT_BONES = {joint: bone for joints, _, bones, *_ in _LIMBS.values() for joint, bone in zip(joints, bones)}


class Posed(NamedTuple):
    """Posed body in F frames, m, in the axes of the motion."""

    vertices: np.ndarray  # (F, V, 3) float32
    normals: np.ndarray  # (F, V, 3) float32: unit vectors outwards
    joints: np.ndarray  # (F, 17, 3) float32: Human3.6M's order; trunk joints are means of hips and shoulders
    points: np.ndarray  # (F, 23, 3) float32: COCO's 17 joints, big and small toes and heels, as seen from outside


class Body:
    """Body model of a file.

    Args:
        cell: m; vertices nearer to each other than about this are merged, on heads and hands than `_FINER` of it; None: none.

    Attributes:
        faces: (T, 3) int32, vertices of triangles, anticlockwise from outside.
        segment: (V,) uint8, the one of `SEGMENTS` that a vertex moves with most.
        upright: (V, 3) float32, vertices of the mean body at rest; z up, facing -y.

    Raises:
        UserError: the file is missing, damaged or another.
    """

    def __init__(self, path=FILE, cell=None):
        arrays = read_npz(path, _ARRAYS, f"; restore it with: git checkout -- {path}")
        self.faces = arrays["faces"].astype(np.int32)
        weights, bones = arrays["w"].astype(np.float32), arrays["i"]
        points = arrays["kp"].astype(np.float32)
        self._mean = arrays["mean"].reshape(-1, 3)
        self._basis = arrays["basis"].astype(np.float32)
        self._count = len(weights)
        segment_of = _segment_of_bones(len(self._mean) - self._count)
        self._weights = np.zeros((self._count, len(SEGMENTS)), np.float32)
        np.add.at(self._weights, (np.arange(self._count)[:, None], segment_of[bones]), weights)
        self._weights /= self._weights.sum(1, keepdims=True)
        self._point_weights = points @ self._weights
        shapes = np.concatenate([self._mean[None], self._basis.reshape(COEFFICIENTS, -1, 3)])[:, : self._count]
        shares = (points[:, None] * self._weights.T).reshape(-1, self._count)  # of a vertex in a point by a segment
        self._point_shapes = np.stack([shares @ vertices for vertices in shapes]).reshape(len(shapes), -1)
        self.segment = self._weights.argmax(1).astype(np.uint8)
        self._drawn = np.arange(self._count)
        if cell:
            fine = np.isin(self.segment, [SEGMENTS.index(name) for name in _FINE])
            cells = np.where(fine, cell * _FINER, cell)
            self._drawn, self.faces = merge_near(self._mean[: self._count], self.faces, self.segment, cells)
            self.segment = self.segment[self._drawn]
        self.upright = self._mean[self._drawn]

    def pose(self, shape, joints, thickness=None):
        """Return the body as `Posed`.

        Args:
            shape: (16,) coefficients, normal with std 1.
            joints: (F, 17, 3) m, z up; the body's hips are where theirs are, for legs as long as theirs.
            thickness: (V,) float32, m, of what the body wears: the vertices move outwards, joints and points stay.
        """
        shape = np.clip(shape, -_CUT, _CUT).astype(np.float32)
        rest = self._mean + (shape @ self._basis).reshape(-1, 3)
        vertices, heads = rest[: self._count], rest[self._count :]
        top = vertices[:, 2].argmax()
        turns = _turns(heads, vertices[top], np.asarray(joints, np.float64))
        moves = _moves(heads, turns, joints)
        rotation = np.stack([turns[name] for name in SEGMENTS], axis=1).astype(np.float32)
        shift = np.stack([moves[name] for name in SEGMENTS], axis=1).astype(np.float32)
        weights, vertices_drawn = self._weights[self._drawn], vertices[self._drawn]
        rest_normals = _normals(vertices_drawn, self.faces)
        if thickness is not None:
            vertices_drawn = vertices_drawn + thickness[:, None] * rest_normals
        posed, normals = _skin(rotation, shift, weights, vertices_drawn, rest_normals)
        shares = np.r_[1, shape].astype(np.float32) @ self._point_shapes
        points = np.einsum("fskl,psl->fpk", rotation, shares.reshape(len(self._point_weights), -1, 3), optimize=True)
        points += self._point_weights @ shift
        crown = np.einsum("s,fskl,l->fk", self._weights[top], rotation, vertices[top]) + self._weights[top] @ shift
        bones = {
            joint: (turns[name] @ heads[bone] + moves[name]) for joint, (bone, name) in _segments_at_joints().items()
        }
        return Posed(posed, normals, _joints(bones, points[:, _NOSE], crown), points)


def _skin(rotation, shift, weights, vertices, normals):
    """Return vertices and unit normals (F, V, 3) of linear blend skinning: rotations (F, S, 3, 3), shifts (F, S, 3)."""
    frames = len(rotation)
    weights = np.ascontiguousarray(weights.T)[:, None]  # the vertices last: long rows make fast products
    places = (weights * np.concatenate([vertices, np.ones_like(vertices[:, :1])], axis=1).T).reshape(-1, len(vertices))
    motions = np.concatenate([rotation, shift[..., None]], axis=3).swapaxes(1, 2).reshape(frames * 3, -1)
    posed = (motions @ places).reshape(frames, 3, -1)
    turned = rotation.swapaxes(1, 2).reshape(frames * 3, -1) @ (weights * normals.T).reshape(-1, len(normals))
    turned = turned.reshape(frames, 3, -1)
    turned /= np.maximum(np.sqrt(np.square(turned).sum(1, keepdims=True)), 1e-6)
    return np.ascontiguousarray(posed.swapaxes(1, 2)), np.ascontiguousarray(turned.swapaxes(1, 2))


def _segment_of_bones(count):
    bones = {name: chosen for name, (_, chosen) in _ENDS.items()} | _TRUNK
    for (upper, lower), (*_, of_upper, of_lower) in _LIMBS.items():
        bones |= {upper: of_upper, lower: of_lower}
    segment = np.zeros(count, np.intp)
    for name, chosen in bones.items():
        segment[list(chosen)] = SEGMENTS.index(name)
    return segment


def _segments_at_joints():
    """Return {joint: (bone, segment)}: the joint is the head of the bone and moves with the segment."""
    found = {}
    for (upper, lower), (joints, _, bones, *_) in _LIMBS.items():
        found |= dict(zip(joints, zip(bones, (upper, lower, lower))))
    return found


def _turns(heads, top, joints):
    """Return {segment: rotations (F, 3, 3)} from rest to the pose of joints (F, 17, 3)."""

    def from_rest(right, up, rest_right, rest_up):
        return _frame(up, right) @ _frame(rest_up, rest_right).T

    turns = {
        "pelvis": from_rest(
            joints[:, 1] - joints[:, 4],
            joints[:, 7] - joints[:, 0],
            heads[_RIGHT_HIP] - heads[_LEFT_HIP],
            heads[_WAIST] - heads[0],
        ),
        "chest": from_rest(
            joints[:, 14] - joints[:, 11],
            joints[:, 8] - joints[:, 7],
            heads[_RIGHT_SHOULDER] - heads[_LEFT_SHOULDER],
            heads[_NECK] - heads[_WAIST],
        ),
    }
    turns["waist"] = _between(turns["pelvis"], turns["chest"])
    turns["head"] = _swing(turns["chest"] @ (top - heads[_NECK]), joints[:, 10] - joints[:, 8]) @ turns["chest"]
    turns["neck"] = _between(turns["chest"], turns["head"])
    for (upper, lower), ((a, b, c), parent, bones, *_) in _LIMBS.items():
        first, second = joints[:, b] - joints[:, a], joints[:, c] - joints[:, b]
        rest_first, rest_second = heads[bones[1]] - heads[bones[0]], heads[bones[2]] - heads[bones[1]]
        rest_hinge = _unit(_cross(rest_first, rest_second))
        swung = _swing(turns[parent] @ rest_first, first) @ turns[parent]
        hinge = swung @ rest_hinge + _HINGE * _cross(_unit(first), _unit(second))
        turns[upper] = _frame(first, hinge) @ _frame(rest_first, rest_hinge).T
        turns[lower] = _frame(second, hinge) @ _frame(rest_second, rest_hinge).T
    return turns | {name: turns[other] for name, (other, _) in _ENDS.items()}


def _moves(heads, turns, joints):
    """Return {segment: shifts (F, 3)}: a point x of it at rest moves to rotation x + shift."""
    hips = (heads[_LEFT_HIP] + heads[_RIGHT_HIP]) / 2
    leg = sum(np.linalg.norm(heads[a] - heads[b]) for a, b in ((2, 4), (4, 6)))
    theirs = np.linalg.norm(joints[:, 4] - joints[:, 5], axis=-1) + np.linalg.norm(joints[:, 5] - joints[:, 6], axis=-1)
    moves = {"pelvis": joints[:, 0] * (leg / theirs.mean()) - turns["pelvis"] @ hips}

    def hang(name, parent, bone):
        moves[name] = (turns[parent] - turns[name]) @ heads[bone] + moves[parent]

    for name, parent in _PARENTS.items():
        hang(name, parent, _TRUNK[name][0])
    for (upper, lower), (_, parent, bones, *_) in _LIMBS.items():
        hang(upper, parent, bones[0])
        hang(lower, upper, bones[1])
    for name, (other, _) in _ENDS.items():
        moves[name] = moves[other]
    return moves


def _joints(bones, nose, top):
    joints = np.zeros((len(nose), len(JOINTS), 3), np.float32)
    for joint, places in bones.items():
        joints[:, joint] = places
    for joint, others in MEANS.items():
        joints[:, joint] = joints[:, others].mean(1)
    joints[:, JOINTS.index("nose")], joints[:, JOINTS.index("head top")] = nose, top
    return joints


def _frame(along, beside):
    """Return rotations (..., 3, 3) whose first column is `along`, the second `beside` made orthogonal to it."""
    first = _unit(along)
    second = _unit(beside - (beside * first).sum(-1, keepdims=True) * first)
    return np.stack([first, second, _cross(first, second)], axis=-1)


def _swing(a, b):
    """Return the smallest rotations (F, 3, 3) from directions a to b, both (F, 3)."""
    a, b = _unit(a), _unit(b)
    middle = _unit(a + b + 1e-9)
    half_turn = 2 * middle[:, :, None] * middle[:, None] - np.eye(3)  # about the middle: takes a to b, turned by pi
    return half_turn @ (2 * a[:, :, None] * a[:, None] - np.eye(3))


def _between(a, b):
    """Return rotations half-way between rotations (F, 3, 3)."""
    mean = a + b
    return _frame(mean[..., 0], mean[..., 1])


def _unit(vectors):
    return vectors / np.maximum(np.sqrt((vectors * vectors).sum(-1, keepdims=True)), 1e-9)


def _cross(a, b):
    """Return cross products (..., 3), as np.cross does, in a fraction of its time for few vectors."""
    (ax, ay, az), (bx, by, bz) = ((v[..., 0], v[..., 1], v[..., 2]) for v in (a, b))
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)


def _normals(vertices, faces):
    """Return unit normals (V, 3) of a mesh, of anticlockwise triangles weighted by their area."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    of_faces = _cross(b - a, c - a)
    normals = np.stack(
        [np.bincount(faces.ravel(), np.repeat(of_faces[:, axis], 3), len(vertices)) for axis in range(3)], axis=1
    )
    return _unit(normals).astype(np.float32)
