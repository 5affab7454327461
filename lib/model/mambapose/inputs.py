"""The images that a network for poses in images is called with, checked."""

from lib.errors import UserError

IMAGE_CHANNELS = {"rgb": 3, "flow": 2, "depth": 1}
STRIDE = 16  # divides the height and width of an input


def refuse_wrong_images(streams, **images):
    """Raise UserError if an image (B, C, H, W) of {stream: image, or None} has another shape, or is of no stream seen."""
    if images["rgb"].dim() != 4:
        raise UserError(f"rgb: expected (B, 3, H, W), got {tuple(images['rgb'].shape)}")
    batch, _, height, width = images["rgb"].shape
    for stream, channels in IMAGE_CHANNELS.items():
        image, shape = images[stream], (batch, channels, height, width)
        if image is not None and stream not in streams:
            raise UserError(f"{stream}: the network sees {', '.join(streams)} only; leave it out")
        if image is not None and image.shape != shape:
            raise UserError(f"{stream}: expected {shape}, as large as rgb, got {tuple(image.shape)}")
    if height % STRIDE or width % STRIDE or not height * width:
        raise UserError(
            f"rgb: {width} x {height} px (width x height): both have to be multiples of {STRIDE} px; "
            f"nearest: {_nearest_multiple(width)} x {_nearest_multiple(height)}"
        )


def _nearest_multiple(pixels):
    return max(STRIDE, round(pixels / STRIDE) * STRIDE)
