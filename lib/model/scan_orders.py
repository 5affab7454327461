"""The orders in which PoseMamba's four scans read a clip: data, one table entry an order."""

from selective_scan import Direction

# Joint j's partner in the local, limb-wise scan. It is the published list of limb starts and not a
# parent per joint; checkpoints depend on it.
LIMB_PARTNER = (0, 0, 1, 2, 3, 0, 4, 5, 6, 8, 11, 12, 13, 8, 14, 15, 16)

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
DISTINCT_ORDERS = tuple(SCAN_ORDERS)
SCAN_ORDERS["v3"] = SCAN_ORDERS["v2"]  # a fork's name for the same maths

# How the gradient passes the sum with a limb partner: as published, or that of the formula.
LIMB_GRADIENTS = ("straight_through", "exact")
