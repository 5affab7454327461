"""The lifting networks that PoseMamba is compared with, in their published sizes, and the recipes of all."""

from lib.config import load_config
from lib.files import PROJECT

RECIPES = {
    "MotionBERT": "MotionBERT_train_h36m",
    **{f"MotionAGFormer-{size}": f"MotionAGFormer_train_h36m_{size}" for size in ("XS", "S", "B", "L")},
}
_OWN = {f"PoseMamba-{size}": f"PoseMamba_train_h36m_{size}" for size in ("S", "B", "L")}


def recipe_of(name):
    """Return the config that a network is trained with: a peer, a key of `RECIPES`, or PoseMamba-S, -B, -L."""
    return load_config(PROJECT / "configs" / "pose3d" / f"{({**_OWN, **RECIPES})[name]}.yaml")
