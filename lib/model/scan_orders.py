"""The orders in which PoseMamba's four scans read a clip: data, one table entry an order."""

from dataclasses import dataclass

# Joint j's partner in the local, limb-wise scan. It is the published list of limb starts and not a
# parent per joint; checkpoints depend on it.
LIMB_PARTNER = (0, 0, 1, 2, 3, 0, 4, 5, 6, 8, 11, 12, 13, 8, 14, 15, 16)


@dataclass(frozen=True)
class Direction:
    """One way through a (frames, joints) grid.

    joint_major: all frames of a joint before the next joint; otherwise all joints of a frame before the
        next frame. `outer` is the slow axis of the two, `inner` the fast one.
    outer_backwards, inner_backwards: whether that axis is read from its end.
    limbs: whether each joint's features are summed with its limb partner's (`LIMB_PARTNER`).
    """

    joint_major: bool = False
    outer_backwards: bool = False
    inner_backwards: bool = False
    limbs: bool = False

    def _backward_axes(self):
        return [axis for axis, backwards in ((-2, self.outer_backwards), (-1, self.inner_backwards)) if backwards]

    def flatten(self, grid):
        """(..., F, J) -> (..., F * J) in the order of this direction."""
        if self.joint_major:
            grid = grid.transpose(-1, -2)
        return grid.flip(self._backward_axes()).flatten(-2)

    def unflatten(self, sequence, frames, joints):
        """(..., F * J) in the order of this direction -> (..., F, J)."""
        shape = (joints, frames) if self.joint_major else (frames, joints)
        grid = sequence.unflatten(-1, shape).flip(self._backward_axes())
        return grid.transpose(-1, -2) if self.joint_major else grid


_FRAMES = Direction()
_JOINTS = Direction(joint_major=True)
_FRAMES_END_TO_END = Direction(outer_backwards=True, inner_backwards=True)
_JOINTS_END_TO_END = Direction(joint_major=True, outer_backwards=True, inner_backwards=True)
_JOINTS_BACKWARDS_IN_FRAME = Direction(inner_backwards=True)
_FRAMES_BACKWARDS_IN_JOINT = Direction(joint_major=True, inner_backwards=True)

# fs/bs: forward/backward spatial scan; ft/bt: forward/backward temporal scan.
SCAN_ORDERS = {
    "v2_plus_poselimbs": (
        Direction(limbs=True),
        _JOINTS,
        Direction(outer_backwards=True, inner_backwards=True, limbs=True),
        _JOINTS_END_TO_END,
    ),
    "v2": (_FRAMES, _JOINTS, _FRAMES_END_TO_END, _JOINTS_END_TO_END),
    "v2_fs_ft": (_FRAMES, _JOINTS) * 2,
    "v2_fs_bt": (_FRAMES, _FRAMES_BACKWARDS_IN_JOINT) * 2,
    "v2_bs_ft": (_JOINTS_BACKWARDS_IN_FRAME, _JOINTS) * 2,
    "v2_bs_bt": (_JOINTS_BACKWARDS_IN_FRAME, _FRAMES_BACKWARDS_IN_JOINT) * 2,
}
SCAN_ORDERS["v3"] = SCAN_ORDERS["v2"]  # a fork's name for the same maths
