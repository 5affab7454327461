"""Normalisation of a person's keypoints to the network's input, independent of the person's position and size.

Every frame is centred on the person and divided by the person's size, both averaged over `SPAN` frames so that the
person's own motion stays in. The network sees each person as if the camera looked straight at them;
`lib.body.camera.look_at_rotation` turns its poses back to the camera's own axes.
"""

import torch

SPAN = 31  # frames of the running mean


def normalize_person(keypoints):
    """Return keypoints in units of the person's size from the person's centre, and that centre and size.

    Args:
        keypoints: (B, F, J, 3): x, y in px (or any unit), confidence; a joint of confidence 0 is not seen.

    Returns:
        (B, F, J, 3): normalised x and y, 0 where not seen, and confidence; the centre (B, F, 2) in px; the size (B, F) in
        px: the root mean square distance of seen joints from the centre.
    """
    positions, confidence = keypoints[..., :2], keypoints[..., 2:]
    seen = (confidence > 0).float() * (confidence + 0.05)
    weight = _running_sum(seen.sum(2)).clamp(min=1e-6)
    centre = _running_sum((positions * seen).sum(2)) / weight
    offset = positions - centre[:, :, None]
    variance = _running_sum((offset.square() * seen).sum(2)).sum(-1, keepdim=True) / weight
    size = variance.sqrt().clamp(min=1e-6)
    inputs = torch.cat([offset / size[..., None] * (confidence > 0), confidence], dim=-1)
    return inputs, centre, size[..., 0]


def _running_sum(values):
    """Return sums of (B, F, C) over the `SPAN` frames around each, fewer at the ends."""
    half = SPAN // 2
    total = torch.nn.functional.pad(values, (0, 0, 1, 0)).cumsum(1)
    frames = torch.arange(values.shape[1])
    return total[:, (frames + half + 1).clamp(max=len(frames))] - total[:, (frames - half).clamp(min=0)]
