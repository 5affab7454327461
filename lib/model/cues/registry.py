"""The estimators of each cue by name, read without what they import."""

from lib.errors import needing
from lib.model.cues.torchvision_match import needing_matching_torchvision
from lib.registry import Registry

REQUIREMENTS = "requirements-mambapose.txt"
_SIZES = ("small", "base", "large")

DEPTH_MODELS = {  # name: repository on the Hugging Face hub
    **{f"depth_anything_v2_{size}": f"depth-anything/Depth-Anything-V2-{size.title()}-hf" for size in _SIZES},
    **{f"depth_anything_v1_{size}": f"LiheYoung/depth-anything-{size}-hf" for size in _SIZES},
    **{
        f"depth_anything_v2_metric_{place}_{size}": (
            f"depth-anything/Depth-Anything-V2-Metric-{place.title()}-{size.title()}-hf"
        )
        for place in ("indoor", "outdoor")
        for size in _SIZES
    },
}

_RAFT = "lib.model.cues.raft:RAFT"
FLOW = Registry("flow", {"dis": "lib.model.cues.dis:DIS", "raft_small": _RAFT, "raft_large": _RAFT})
DEPTH = Registry("depth", dict.fromkeys(DEPTH_MODELS, "lib.model.cues.depth_anything:DepthAnything"))
CUES = {"flow": FLOW, "depth": DEPTH}


def open_estimator(cue, name, **options):
    """Return the `lib.model.cues.estimator.Estimator` of a name.

    Args:
        cue: a key of `CUES`.
        options: for its class: `weights` (file or folder), `device`, `batch`, `max_side`.

    Raises:
        UserError: there is none of that name, a package or the weights are missing, or the weights are another's.
    """
    with needing(f"{cue} by {name}", REQUIREMENTS), needing_matching_torchvision():
        return CUES[cue][name](name, **options)
