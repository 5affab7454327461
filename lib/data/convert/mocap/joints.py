"""Tables in YAML that define the project's 17 joints by points of a skeleton.

    up: y                       vertical axis of the files, y or z
    metres_per_unit: 0.0254     of positions as the reader returns them (ASF: divided by the file's own `length`)
    fps: 120                    of files that do not state it (AMC)
    skip_frames: 0              frames to skip at a clip's start, such as a T-pose that is not part of the motion
    joints:                     by the names of lib/body/skeleton.py; pelvis, spine and thorax may be left out: they then
                                follow the rules of lib/body/layouts.py, from hips and shoulders
      right knee: rfemur.end    a point: a bone or joint is its start, NAME.end its free end
      head top: {head: -0.3, head.end: 1.3}        weighted mean of points; weights sum to 1 and may be negative
      nose:                                        a point and a distance in front of it:
        {point: head, metres: 0.08,
         left: [rhumerus, lhumerus], up: [head, head.end]}  the front is left x up, each the direction between two points

configs/skeletons/ has the tables of CMU's files and of SMPL-H. Files with y up are rotated to z up: (x, y, z) -> (x, -z, y).
"""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from lib.body.layouts import MEANS
from lib.body.skeleton import JOINTS
from lib.data.convert.mocap.motion import LEAST_FPS, MOST_FPS
from lib.data.joint_tables import Strict, read_joint_table
from lib.errors import UserError, nearest

_ENTRY = "a point, weights of points, or point, metres, left and up"
_TO_Z_UP = {
    "y": np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]),  # a quarter turn about x
    "z": np.eye(3),
}


class InFront(Strict):
    """A point and a distance in front of it."""

    point: str
    metres: float
    left: tuple[str, str]
    up: tuple[str, str]


class JointTable(Strict):
    """The content of a table."""

    up: Literal["y", "z"]
    metres_per_unit: Annotated[float, Field(gt=0)]
    fps: Annotated[float, Field(ge=LEAST_FPS, le=MOST_FPS)] | None = None
    skip_frames: Annotated[int, Field(ge=0)] = 0
    joints: dict[str, str | dict[str, float] | InFront]

    def positions(self, names, positions):
        """Return the 17 joints (n, 17, 3) in m, z up, from named points (n, P, 3) in the file's unit and axes.

        Raises:
            UserError: a point of the table is not among `names`.
        """
        to_z_up = _TO_Z_UP[self.up] * self.metres_per_unit

        def point(joint, name):
            if name not in names:
                raise UserError(f"joint {joint!r}: the skeleton has no point {name!r}{nearest(name, names)}")
            return positions[:, names.index(name)] @ to_z_up.T

        def position(joint, source):
            if isinstance(source, str):
                return point(joint, source)
            if isinstance(source, dict):
                return sum(weight * point(joint, name) for name, weight in source.items())
            left, up = (point(joint, b) - point(joint, a) for a, b in (source.left, source.up))
            front = np.cross(left, up)
            front /= np.maximum(np.linalg.norm(front, axis=-1, keepdims=True), 1e-12)
            return point(joint, source.point) + source.metres * front

        given = {joint: position(joint, source) for joint, source in self.joints.items()}
        result = np.stack([given.get(joint, np.zeros_like(positions[:, 0])) for joint in JOINTS], axis=1)
        for joint, sources in MEANS.items():
            if JOINTS[joint] not in given:
                result[:, joint] = result[:, sources].mean(1)
        return result


def read_table(path):
    """Return the `JointTable` of a YAML file.

    Raises:
        UserError: the file is missing, not YAML or not such a table; names the key.
    """
    table = read_joint_table(path, JointTable, _ENTRY, optional=[JOINTS[joint] for joint in MEANS])
    for joint, source in table.joints.items():
        if isinstance(source, dict) and abs(sum(source.values()) - 1) > 1e-6:
            raise UserError(f"{path}: joints: {joint}: the weights sum to {sum(source.values()):g}, expected 1")
    return table
