"""Flow by OpenCV's DIS (Kroeger et al., ECCV 2016, arXiv 1603.03590): no weights, coarse where limbs are fast."""

import cv2
import numpy as np
import torch

from lib.model.cues.estimator import Estimator, back_to

_LEAST = 32  # px; OpenCV refuses or crashes on sides of 12 px and less


class DIS(Estimator):
    """Estimator of flow by dense inverse search, on the CPU.

    Args:
        weights: there are none; taken so that all estimators are opened alike.
        name, device, batch, max_side: of `Estimator`.
    """

    cue, channels, ahead, takes_weights = "flow", (2,), 1, False

    def __init__(self, name="dis", weights=None, device="cpu", batch=4, max_side=512):
        super().__init__(name, device, batch, max_side)
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def _estimate(self, images):
        frame = images.shape[2], images.shape[1]
        size = self.working_size(*frame)
        greys = [_grey(image, size) for image in images]
        flow = np.stack([self._dis.calc(one, following, None) for one, following in zip(greys, greys[1:])])
        return back_to(torch.from_numpy(flow).permute(0, 3, 1, 2).to(self.device), size, frame)


def _grey(image, size):
    """Return an image (H, W, 3) as grey of a working size (width, height), filled up to the smallest that DIS takes."""
    grey = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    missing = [max(0, _LEAST - side) for side in grey.shape]
    return cv2.copyMakeBorder(grey, 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE)
