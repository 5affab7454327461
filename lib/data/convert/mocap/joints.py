"""Which points of a skeleton are the project's 17 joints: a table in YAML.

    up: y                       axis of the files that points up, y or z
    metres_per_unit: 0.0254     of positions as the reader gives them (ASF: divided by the file's own `length`)
    fps: 120                    of files that do not say (AMC)
    skip_frames: 0              left out at a clip's start, such as a T-pose that is not part of the motion
    joints:                     all 17, by the names of lib/body/skeleton.py
      right knee: rfemur.end    a point: a bone or joint is where it starts, NAME.end its free end
      pelvis: {lfemur: 0.5, rfemur: 0.5}           weighted mean of points; weights add up to 1, below 0 is allowed
      nose:                                        a point and a distance ahead of it:
        {point: head, metres: 0.08,
         left: [rhumerus, lhumerus], up: [head, head.end]}  ahead is left x up, the directions between two points

configs/skeletons/ has the tables of CMU's files. Up y turns into the project's z up by (x, y, z) -> (x, -z, y).
"""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from lib.body.skeleton import JOINTS
from lib.data.convert.mocap.motion import LEAST_FPS, MOST_FPS
from lib.data.joint_tables import Strict, read_joint_table
from lib.errors import UserError, nearest

_TO_Z_UP = {
    "y": np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]),  # a quarter turn about x
    "z": np.eye(3),
}


class Ahead(Strict):
    point: str
    metres: float
    left: tuple[str, str]
    up: tuple[str, str]


class JointTable(Strict):
    up: Literal["y", "z"]
    metres_per_unit: Annotated[float, Field(gt=0)]
    fps: Annotated[float, Field(ge=LEAST_FPS, le=MOST_FPS)] | None = None
    skip_frames: Annotated[int, Field(ge=0)] = 0
    joints: dict[str, str | dict[str, float] | Ahead]

    def positions(self, names, positions):
        """The 17 joints (n, 17, 3) in m, z up, of named points (n, P, 3) in the file's unit and axes.

        Raises:
            UserError: a point of the table is not among `names`.
        """
        turn = _TO_Z_UP[self.up] * self.metres_per_unit

        def point(joint, name):
            if name not in names:
                raise UserError(f"joint {joint!r}: the skeleton has no point {name!r}{nearest(name, names)}")
            return positions[:, names.index(name)] @ turn.T

        def place(joint, source):
            if isinstance(source, str):
                return point(joint, source)
            if isinstance(source, dict):
                return sum(weight * point(joint, name) for name, weight in source.items())
            left, up = (point(joint, b) - point(joint, a) for a, b in (source.left, source.up))
            ahead = np.cross(left, up)
            ahead /= np.maximum(np.linalg.norm(ahead, axis=-1, keepdims=True), 1e-12)
            return point(joint, source.point) + source.metres * ahead

        return np.stack([place(joint, self.joints[joint]) for joint in JOINTS], axis=1)


def read_table(path):
    """The `JointTable` of a YAML file.

    Raises:
        UserError: the file is missing, not YAML or not such a table; names the key.
    """
    table = read_joint_table(path, JointTable, _explain)
    for joint, source in table.joints.items():
        if isinstance(source, dict) and abs(sum(source.values()) - 1) > 1e-6:
            raise UserError(f"{path}: joints: {joint}: the weights add up to {sum(source.values()):g}, expected 1")
    return table


def _explain(error):
    place = [str(part) for part in error["loc"]]
    if place[:1] == ["joints"] and len(place) > 1:
        return f"joints: {place[1]}: expected a point, weights of points, or point, metres, left and up"
    if error["type"] == "extra_forbidden":
        return f"unknown key {place[0]!r}{nearest(place[0], JointTable.model_fields)}"
    return f"{'.'.join(place) or 'the file'}: {error['msg'][0].lower()}{error['msg'][1:]}"
