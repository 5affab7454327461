"""The lifting networks that PoseMamba is compared with, in their published sizes."""

from lib.config import load_config
from lib.files import PROJECT

RECIPES = {
    "MotionBERT": "MotionBERT_train_h36m",
    **{f"MotionAGFormer-{size}": f"MotionAGFormer_train_h36m_{size}" for size in ("XS", "S", "B", "L")},
}


def recipe_of(peer):
    """Return the config that a peer, a key of `RECIPES`, is trained with."""
    return load_config(PROJECT / "configs" / "pose3d" / f"{RECIPES[peer]}.yaml")
