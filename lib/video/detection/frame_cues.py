"""Cues of a video's frames while it is seen, cut to the crops of people: flow by DIS, depth by Depth Anything."""

import numpy as np
import torch

from lib.model.cues.normalise import normalised
from lib.model.cues.registry import open_estimator

DEPTH = "depth_anything_v2_small"
_FLOW_TIME = 1 / 30  # s, over which networks see motion (lib/data/synthetic/pose_pairs.py)
_LEAST_TIME = 1e-3  # s from frame to frame


class FrameCues:
    """Cues of consecutive frames.

    Args:
        flow: whether there is flow.
        depth: folder of Depth Anything V2 Small; None: there is no depth.
        device: torch's, for depth.

    Raises:
        UserError: the folder holds no such weights.
    """

    def __init__(self, flow=False, depth=None, device="cpu"):
        self._flow = open_estimator("flow", "dis") if flow else None
        self._depth = None if depth is None else open_estimator("depth", DEPTH, weights=depth, device=device)
        self._before = None

    def see(self, frame, seconds):
        """Take the next frame, (H, W, 3) uint8, and its time, which every frame needs that flow is measured from."""
        self._last, self._before = self._before, (frame, seconds)

    def cut(self, crops):
        """Return flow (n, 2, H, W), px of the crops, and depth (n, 1, H, W) of n `Crop`s, tensors; None of what there is not.

        The flow is that to the next frame, 1/30 s later, if all moves on as since the last one; in the first, nothing.
        """
        return self._cut_flow(crops), self._cut_depth(crops)

    def _cut_flow(self, crops):
        if self._flow is None:
            return None
        frame, seconds = self._before
        if self._last is None:
            flow = np.zeros((2, *frame.shape[:2]), np.float32)
        else:
            last, before = self._last
            back = self._flow(np.stack([frame, last]))[0].numpy()
            flow = back * np.float32(-_FLOW_TIME / max(seconds - before, _LEAST_TIME))
        return torch.from_numpy(np.stack([crop.cut_flow(flow) for crop in crops]).astype(np.float32))

    def _cut_depth(self, crops):
        if self._depth is None:
            return None
        frame, _ = self._before
        depth = self._depth(frame[None])[0].cpu().numpy()
        depth = torch.from_numpy(np.stack([crop.cut_depth(depth) for crop in crops]))
        return normalised(depth)[:, None].nan_to_num(0.0)
