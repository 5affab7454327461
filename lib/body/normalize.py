"""How a person's keypoints in the picture become the network's input, wherever and however large the person is.

Every frame is centred on the person and divided by the person's size, both averaged over `SPAN` frames so that the
person's own movement stays in. What is known of the camera is put back by `towards`: the network sees each person as
if the camera looked straight at them.
"""

import torch

SPAN = 31  # frames of the running mean


def crop(keypoints):
    """Keypoints in px as seen by the network, and where they were.

    Args:
        keypoints: (B, F, J, 3): x, y in px (or any unit), confidence; a joint of confidence 0 is not seen.

    Returns:
        (B, F, J, 3): x and y from the person's centre in units of the person's size, 0 where not seen, and confidence;
        the centre (B, F, 2) in px; the size (B, F) in px: the root mean square distance of seen joints from it.
    """
    places, confidence = keypoints[..., :2], keypoints[..., 2:]
    seen = (confidence > 0).float() * (confidence + 0.05)
    weight = _running_sum(seen.sum(2)).clamp(min=1e-6)
    centre = _running_sum((places * seen).sum(2)) / weight
    off = places - centre[:, :, None]
    variance = _running_sum((off.square() * seen).sum(2)).sum(-1, keepdim=True) / weight
    size = variance.sqrt().clamp(min=1e-6)
    inputs = torch.cat([off / size[..., None] * (confidence > 0), confidence], dim=-1)
    return inputs, centre, size[..., 0]


def towards(centre, focal):
    """Rotations (..., 3, 3) from the camera's axes to those of a camera turned to look at `centre`.

    centre: (..., 2) from the principal point, in the unit of `focal`; axes are x right, y down, z ahead.
    """
    x, y = (centre / focal).to(centre.dtype).unbind(-1)
    level = (1 + x.square()).sqrt()
    length = (1 + x.square() + y.square()).sqrt()
    zero = torch.zeros_like(x)
    right = torch.stack([1 / level, zero, -x / level], dim=-1)
    down = torch.stack([-x * y / (level * length), level / length, -y / (level * length)], dim=-1)
    ahead = torch.stack([x / length, y / length, 1 / length], dim=-1)
    return torch.stack([right, down, ahead], dim=-2)


def _running_sum(values):
    """Sums of (B, F, C) over the `SPAN` frames round each, fewer at the ends."""
    half = SPAN // 2
    total = torch.nn.functional.pad(values, (0, 0, 1, 0)).cumsum(1)
    frames = torch.arange(values.shape[1])
    return total[:, (frames + half + 1).clamp(max=len(frames))] - total[:, (frames - half).clamp(min=0)]
