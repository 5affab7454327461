"""The 17 joints of Human3.6M, in its order, and what follows from them."""

JOINTS = (
    "pelvis", "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle",
    "spine", "thorax", "nose", "head top", "left shoulder", "left elbow", "left wrist",
    "right shoulder", "right elbow", "right wrist",
)  # fmt: skip

ROOT = 0

LIMBS = (
    (0, 1), (1, 2), (2, 3), (0, 4), (4, 5), (5, 6), (0, 7), (7, 8), (8, 9), (9, 10),
    (8, 11), (11, 12), (12, 13), (8, 14), (14, 15), (15, 16),
)  # fmt: skip

LEFT = (4, 5, 6, 11, 12, 13)
RIGHT = (1, 2, 3, 14, 15, 16)


def mirrored_order(joints):
    """Return, for each of some joints by name, the index of the one on the other side of the body."""
    others = {name: name.replace("left", "*").replace("right", "left").replace("*", "right") for name in joints}
    return tuple(joints.index(others[name]) for name in joints)


FLIPPED = mirrored_order(JOINTS)  # FLIPPED[j] is the joint on the other side of the body


def limb_vectors(poses):
    """Return the vectors (..., 16, C) from each limb's first joint to its second; poses: (..., 17, C), array or tensor."""
    parents, children = map(list, zip(*LIMBS))
    return poses[..., children, :] - poses[..., parents, :]


def root_relative(poses):
    """Return poses (..., J, 3), array or tensor, with the root at the origin."""
    return poses - poses[..., ROOT, None, :]


def flip(poses):
    """Return mirrored poses (..., J, 2 or more): x changes sign, left and right joints change places.

    Poses are normalised, an array or a tensor; channels after the first are kept (y, depth, confidence).
    """
    mirrored = poses[..., list(FLIPPED), :]  # a copy: indexing by a list never gives a view
    mirrored[..., 0] *= -1
    return mirrored
