"""Depth as networks see it: inverse depth without its scale and shift, which relative depth models leave open."""

_LEAST_SHARE = 0.5  # of the mean absolute deviation
_FLAT = 1e-12


def normalised(inverse):
    """Return inverse depth (..., H, W) as (inverse depth - median) / MAD over each map; near is large, a flat map is 0.

    MAD, the median absolute deviation, counts as at least half of the mean one, which it exceeds in most images: where
    most of a map is one plane, such as the background of a person, it is 0. NaN (no depth there) is left out and stays NaN.
    """
    values = inverse.flatten(-2)
    off = values - values.nanmedian(-1, keepdim=True).values
    size = off.abs()
    median, mean = size.nanmedian(-1, keepdim=True).values, size.nanmean(-1, keepdim=True)
    return (off / median.maximum(_LEAST_SHARE * mean).clamp(min=_FLAT)).view_as(inverse)
