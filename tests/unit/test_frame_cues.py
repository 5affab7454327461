"""Cues of frames in crops: the direction and size of flow, and depth as networks learn it."""

import numpy as np
import pytest
from test_cues import textured, weights  # noqa: F401

from lib.video.detection.crops import Crop
from lib.video.detection.frame_cues import FrameCues

SIZE, FOCAL = (48, 64), 2000.0
BOX = np.array([111, 74, 177, 150])


@pytest.mark.parametrize("fps, share", [(30, 1), (60, 2)])
def test_flow_is_what_moves_in_a_30th_of_a_second_onwards(fps, share):
    cues, crops = FrameCues(flow=True), [Crop(BOX, (320, 240), FOCAL, SIZE)] * 2
    cues.see(textured(320, 240), 0)
    first, depth = cues.cut(crops)
    assert depth is None and first.shape == (2, 2, 64, 48) and (first == 0).all()
    cues.see(textured(320, 240, (3, -2)), 1 / fps)
    flow, _ = cues.cut(crops)
    scale = 48 / (1.25 * 66)  # px of the crop in one of the frame
    found = flow[0].mean((1, 2)).numpy()
    np.testing.assert_allclose(found, np.array([3, -2]) * share * scale, rtol=0.1)


def test_depth_is_normalised_in_each_crop(weights):  # noqa: F811
    cues = FrameCues(depth=weights)
    cues.see(textured(320, 240), 0)
    flow, depth = cues.cut([Crop(BOX, (320, 240), FOCAL, SIZE), Crop(BOX - [140, 0, 140, 0], (320, 240), FOCAL, SIZE)])
    assert flow is None and depth.shape == (2, 1, 64, 48) and depth.isfinite().all()
    inside = depth[0].flatten()
    assert abs(inside.median()) < 0.01 and (inside - inside.median()).abs().median() <= 1.01
    assert (depth[1][..., :20] == 0).all() and depth[1][..., 30:].std() > 0.1
