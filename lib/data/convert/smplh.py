"""SMPL-H bodies (Romero et al. 2017; SMPL: Loper et al. 2015): positions of joints and of points of the skin in a pose.

With S the vertices of a person's shape at rest, J their joints, R the joints' local rotations, G and x a joint's rotation
and position in the world:

    S = v_template + shapedirs betas,  J = J_regressor S
    G_root = R_root, x_root = J_root + trans;  G = G_parent R, x = x_parent + G_parent (J - J_parent)
    a vertex: sum over joints of its weight times (x + G (s - J)),  s = S + posedirs (R - 1 of all joints but the root)

Soft tissue (DMPL) is left out. A point that is a weighted sum of vertices is linear in G, x and s: the sums over
vertices are computed once per person, so that no frame needs a mesh.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from lib.data.npz_files import read_npz
from lib.errors import UserError

JOINT_NAMES = (  # of the body; the fingers' joints follow
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle",
    "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder",
    "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
)  # fmt: skip
JOINT_COUNT = 52
HEAD_VERTICES = {"nose_vertex": 332, "head_top_vertex": 412}  # of the mesh that SMPL and SMPL-H share
POINT_NAMES = (*JOINT_NAMES, *HEAD_VERTICES)

_HEAD = JOINT_NAMES.index("head")
_WHERE = "the 'Extended SMPL+H model' of mano.is.tue.mpg.de has them (smplh.tar.xz: male/model.npz, female/model.npz)"


@dataclass(frozen=True)
class BodyModel:
    """Body model of V vertices and 52 joints.

    template (V, 3) m; shapes (V, 3, n); regressor (52, V); weights (V, 52); parents (52,), -1 for the root; poses
    (V, 3, 459), or None if not requested.
    """

    path: Path
    template: np.ndarray
    shapes: np.ndarray
    regressor: np.ndarray
    weights: np.ndarray
    parents: np.ndarray
    poses: np.ndarray | None


def find_model(folder, gender):
    """Return the model file of a gender below a folder: GENDER/model.npz, smplh/GENDER/model.npz or SMPLH_GENDER.npz.

    Raises:
        UserError: there is none, or only a pickle; says where to get one.
    """
    folder = Path(folder)
    names = [f"{gender}/model", f"smplh/{gender}/model", f"SMPLH_{gender}", f"SMPLH_{gender.upper()}"]
    for name in names:
        if (folder / f"{name}.npz").is_file():
            return folder / f"{name}.npz"
    for name in names:
        if (folder / f"{name}.pkl").is_file():
            raise UserError(
                f"{folder / f'{name}.pkl'}: refused: model pickles hold chumpy objects, which run code when they are "
                f"read; get the .npz files: {_WHERE}"
            )
    raise UserError(f"{folder}: has no {names[0]}.npz; give the folder of the SMPL-H models: {_WHERE}")


def read_model(path, with_poses=False):
    """Read the `BodyModel` of an .npz file; pose blend shapes only if requested.

    Raises:
        UserError: the file is missing, truncated, holds objects, or lacks an array (names it) or has it in another shape.
    """
    keys = ["v_template", "shapedirs", "J_regressor", "weights", "kintree_table"] + ["posedirs"] * with_poses
    found = read_npz(path, keys)
    if found["v_template"].ndim != 2:
        raise UserError(f"{path}: 'v_template' has shape {found['v_template'].shape}, expected (V, 3)")
    count = len(found["v_template"])
    shapes = {
        "v_template": (count, 3),
        "shapedirs": (count, 3, found["shapedirs"].shape[-1] if found["shapedirs"].ndim else 0),
        "J_regressor": (JOINT_COUNT, count),
        "weights": (count, JOINT_COUNT),
        "kintree_table": (2, JOINT_COUNT),
        "posedirs": (count, 3, 9 * (JOINT_COUNT - 1)),
    }
    for key in keys:
        check_array(path, key, found[key], shapes[key])
    parents = found["kintree_table"][0].astype(np.int64)
    parents[0] = -1  # 2^32 - 1 in the files
    if (parents[1:] < 0).any() or (parents >= np.arange(JOINT_COUNT)).any():
        raise UserError(f"{path}: 'kintree_table': a joint's parent does not come before it")
    return BodyModel(
        Path(path),
        found["v_template"].astype(np.float64),
        found["shapedirs"].astype(np.float64),
        found["J_regressor"].astype(np.float64),
        found["weights"].astype(np.float64),
        parents,
        found["posedirs"].astype(np.float64) if with_poses else None,
    )


def check_array(path, key, array, shape):
    """Raise a UserError unless an array holds finite numbers and has this shape."""
    if array.shape != shape:
        raise UserError(f"{path}: {key!r} has shape {array.shape}, expected {shape}")
    if array.dtype.kind not in "iuf":
        raise UserError(f"{path}: {key!r} holds {array.dtype}, expected real numbers")
    if not np.isfinite(array).all():
        place = f" in row {np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(1))[0]}" if shape else ""
        raise UserError(f"{path}: {key!r} is not finite{place}")


class Skeleton:
    """Joints of a body of one shape, and the two `HEAD_VERTICES`, fixed to the head.

    Args:
        model: a `BodyModel`.
        betas: (n,) shape; coefficients beyond the model's are ignored.

    Raises:
        UserError: the model's mesh has no such vertices.
    """

    def __init__(self, model, betas):
        if len(model.template) <= max(HEAD_VERTICES.values()):
            raise UserError(f"{model.path}: 'v_template' has {len(model.template)} vertices, SMPL-H's mesh has 6890")
        self.parents = model.parents
        vertices, self.rest = _at_rest(model, betas)
        self.head = vertices[list(HEAD_VERTICES.values())] - self.rest[_HEAD]

    def __call__(self, poses, trans):
        """Return points (n, 24, 3), `POINT_NAMES`, in m, of poses (n, 156) (rotation vectors) and translations (n, 3) in m."""
        _, rotations, joints = _pose(self.rest, self.parents, poses, trans)
        head = joints[:, _HEAD, None] + np.einsum("nij,vj->nvi", rotations[:, _HEAD], self.head)
        return np.concatenate([joints[:, : len(JOINT_NAMES)], head], axis=1)


class Regressed:
    """Weighted sums of the vertices of a body of one shape, without its mesh.

    Args:
        model: a `BodyModel` with `poses`.
        betas: (n,) shape.
        regressor: (K, V), weights of the vertices for each of K points.
    """

    def __init__(self, model, betas, regressor):
        self.parents = model.parents
        vertices, self.rest = _at_rest(model, betas)
        # A point is a sum over joints j of  share (x - G J) + G (place + directions (R - 1)),  of the joints that move it.
        shares, places, directions, self.owner, self.starts = [], [], [], [], []
        for of_vertices in regressor:
            used = np.flatnonzero(of_vertices)
            weights = model.weights[used] * of_vertices[used, None]
            owners = np.flatnonzero(np.abs(weights).sum(0)) if len(used) else np.array([0])
            self.starts.append(len(self.owner))
            self.owner.extend(owners.tolist())
            weights = weights[:, owners].T
            shares.append(weights.sum(1))
            places.append(weights @ vertices[used])
            directions.append(np.tensordot(weights, model.poses[used], axes=1))
        self.share, self.place = np.concatenate(shares), np.concatenate(places)
        self.directions = np.concatenate(directions).reshape(3 * len(self.owner), -1).T

    def __call__(self, poses, trans):
        """Return points (n, K, 3) in m of poses (n, 156) and translations (n, 3) in m."""
        own, rotations, joints = _pose(self.rest, self.parents, poses, trans)
        feature = (own[:, 1:] - np.eye(3)).reshape(len(poses), -1)
        bent = self.place + (feature @ self.directions).reshape(len(poses), -1, 3)
        bent -= self.share[:, None] * self.rest[self.owner]
        parts = np.einsum("npij,npj->npi", rotations[:, self.owner], bent) + self.share[:, None] * joints[:, self.owner]
        return np.add.reduceat(parts, self.starts, axis=1)


def _at_rest(model, betas):
    """Return vertices (V, 3) and joints (52, 3) of a shape."""
    used = min(len(betas), model.shapes.shape[-1])
    vertices = model.template + model.shapes[..., :used] @ betas[:used]
    return vertices, model.regressor @ vertices


def _pose(rest, parents, poses, trans):
    """Return local and world rotations (n, 52, 3, 3) of the joints, and joints (n, 52, 3)."""
    count = len(poses)
    own = Rotation.from_rotvec(poses.reshape(-1, 3)).as_matrix().reshape(count, JOINT_COUNT, 3, 3)
    rotations, joints = np.empty_like(own), np.empty((count, JOINT_COUNT, 3))
    rotations[:, 0], joints[:, 0] = own[:, 0], rest[0] + trans
    for joint, parent in enumerate(parents[1:].tolist(), 1):
        rotations[:, joint] = rotations[:, parent] @ own[:, joint]
        joints[:, joint] = joints[:, parent] + rotations[:, parent] @ (rest[joint] - rest[parent])
    return own, rotations, joints
