"""Scan paths of a cross-scan through a (frames, joints) grid."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Direction:
    """Direction of a scan path through a (frames, joints) grid.

    joint_major: all frames of a joint before the next joint; otherwise all joints of a frame before the
        next frame. `outer` is the slow axis of the two, `inner` the fast one.
    outer_backwards, inner_backwards: whether that axis is read from its end.
    limbs: whether each joint's features are summed with its limb partner's.
    """

    joint_major: bool = False
    outer_backwards: bool = False
    inner_backwards: bool = False
    limbs: bool = False

    def _backward_axes(self):
        return [axis for axis, backwards in ((-2, self.outer_backwards), (-1, self.inner_backwards)) if backwards]

    def flatten(self, grid):
        """Return a grid (..., F, J) as (..., F * J) in the order of this direction."""
        if self.joint_major:
            grid = grid.transpose(-1, -2)
        return grid.flip(self._backward_axes()).flatten(-2)

    def unflatten(self, sequence, frames, joints):
        """Return a sequence (..., F * J) in the order of this direction as a grid (..., F, J)."""
        shape = (joints, frames) if self.joint_major else (frames, joints)
        grid = sequence.unflatten(-1, shape).flip(self._backward_axes())
        return grid.transpose(-1, -2) if self.joint_major else grid

    def path(self, frames, joints):
        """Return (start, inner, outer_step, inner_step) of the path.

        Step t reads position f * J + j = start + t // inner * outer_step + t % inner * inner_step.
        """
        outer, inner, outer_step, inner_step = (
            (joints, frames, 1, joints) if self.joint_major else (frames, joints, joints, 1)
        )
        start = 0
        if self.outer_backwards:
            start, outer_step = start + (outer - 1) * outer_step, -outer_step
        if self.inner_backwards:
            start, inner_step = start + (inner - 1) * inner_step, -inner_step
        return start, inner, outer_step, inner_step

    def encode(self):
        """Return the direction as one integer, a bit per field."""
        return sum(getattr(self, field.name) << i for i, field in enumerate(fields(self)))

    @classmethod
    def decode(cls, code):
        """Return the direction of an integer of `encode`."""
        return cls(*(bool(code >> i & 1) for i in range(len(fields(cls)))))
