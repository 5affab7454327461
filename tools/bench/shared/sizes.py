"""Published model sizes."""

import math
from typing import NamedTuple

from lib.model.scan_orders import LIMB_PARTNER

JOINTS = len(LIMB_PARTNER)


class Size(NamedTuple):
    """Published model size: C, and pairs of blocks."""

    channels: int
    depth: int

    @property
    def inner(self):
        return 2 * self.channels

    @property
    def rank(self):
        return math.ceil(self.channels / 16)


SIZES = {"S": Size(64, 10), "B": Size(128, 10), "L": Size(128, 20)}
