"""Joint layouts of detectors and data sets, and the rules that turn each into the 17 joints of Human3.6M.

Training and inference use the same rules. The joints of the trunk follow them even where a source has its own pelvis or
neck, so that all sources agree; a true head top is used where there is one.
"""

from functools import cache

import numpy as np

from lib.body.skeleton import JOINTS

_COCO = (
    "nose", "left eye", "right eye", "left ear", "right ear", "left shoulder", "right shoulder",
    "left elbow", "right elbow", "left wrist", "right wrist", "left hip", "right hip",
    "left knee", "right knee", "left ankle", "right ankle",
)  # fmt: skip
_OPENPOSE_ARMS = (
    "nose", "neck", "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow", "left wrist",
)  # fmt: skip
_OPENPOSE_LEGS = ("right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle")
_OPENPOSE_FACE = ("right eye", "left eye", "right ear", "left ear")

LAYOUTS = {  # name: the source's joints in its order
    "coco17": _COCO,
    "halpe26": (
        *_COCO, "head top", "neck", "hip", "left big toe", "right big toe", "left small toe", "right small toe",
        "left heel", "right heel",
    ),
    "openpose18": (*_OPENPOSE_ARMS, *_OPENPOSE_LEGS, *_OPENPOSE_FACE),
    "openpose25": (
        *_OPENPOSE_ARMS, "middle hip", *_OPENPOSE_LEGS, *_OPENPOSE_FACE, "left big toe", "left small toe", "left heel",
        "right big toe", "right small toe", "right heel",
    ),
    "mediapipe33": (
        "nose", "left eye inner", "left eye", "left eye outer", "right eye inner", "right eye", "right eye outer",
        "left ear", "right ear", "mouth left", "mouth right", "left shoulder", "right shoulder",
        "left elbow", "right elbow", "left wrist", "right wrist", "left pinky", "right pinky",
        "left index", "right index", "left thumb", "right thumb", "left hip", "right hip", "left knee", "right knee",
        "left ankle", "right ankle", "left heel", "right heel", "left foot index", "right foot index",
    ),
    "mpii16": (
        "right ankle", "right knee", "right hip", "left hip", "left knee", "left ankle", "pelvis", "thorax",
        "upper neck", "head top", "right wrist", "right elbow", "right shoulder",
        "left shoulder", "left elbow", "left wrist",
    ),
    "posetrack17": (  # of PoseTrack18
        "nose", "upper neck", "head top", "left ear", "right ear", "left shoulder", "right shoulder",
        "left elbow", "right elbow", "left wrist", "right wrist", "left hip", "right hip",
        "left knee", "right knee", "left ankle", "right ankle",
    ),
    "h36m17": JOINTS,
}  # fmt: skip

RULES = {  # joint of Human3.6M: weights of source joints; any other joint is the source's joint of the same name
    "pelvis": {"left hip": 0.5, "right hip": 0.5},
    "spine": {"left hip": 0.25, "right hip": 0.25, "left shoulder": 0.25, "right shoulder": 0.25},
    "thorax": {"left shoulder": 0.5, "right shoulder": 0.5},
    "head top": {"left ear": 0.875, "right ear": 0.875, "left shoulder": -0.375, "right shoulder": -0.375},
}

EXCEPTIONS = {  # layout: its own rules
    "halpe26": {"head top": {"head top": 1.0}},
    "posetrack17": {"head top": {"head top": 1.0}},
    "mpii16": {"head top": {"head top": 1.0}, "nose": {"upper neck": 0.5, "head top": 0.5}},
    "h36m17": {joint: {joint: 1.0} for joint in JOINTS},
}

MEANS = {  # index of a joint of Human3.6M that is, by its rule, the mean of others of the 17: their indices
    JOINTS.index(joint): tuple(sorted(JOINTS.index(source) for source in sources))
    for joint, sources in RULES.items()
    if set(sources) <= set(JOINTS)
}


def rule(joint, layout):
    """Return {source joint: weight}, whose weighted mean is `joint` of Human3.6M; weights sum to 1."""
    return EXCEPTIONS.get(layout, {}).get(joint) or RULES.get(joint) or {joint: 1.0}


@cache
def weights(layout):
    """Return the rules of a layout as a matrix (17, K), float32."""
    matrix = np.zeros((len(JOINTS), len(LAYOUTS[layout])), np.float32)
    for index, joint in enumerate(JOINTS):
        for source, weight in rule(joint, layout).items():
            matrix[index, LAYOUTS[layout].index(source)] = weight
    return matrix


def to_h36m(keypoints, layout):
    """Return the 17 joints of Human3.6M from a source's joints.

    Args:
        keypoints: (..., K, 3): x, y in any unit, confidence; finite.
        layout: a key of `LAYOUTS`.

    Returns:
        (..., 17, 3) float32; a confidence is the smallest of the joints that were used, within 0 to 1.
    """
    keypoints = np.asarray(keypoints, np.float32)
    matrix = weights(layout)
    positions = matrix @ keypoints[..., :2]
    used = np.where(matrix != 0, keypoints[..., None, :, 2], np.inf)
    confidence = np.clip(used.min(axis=-1, keepdims=True), 0, 1)
    return np.concatenate([positions, confidence], axis=-1)
