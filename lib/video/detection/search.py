"""Looking for people whom nobody knows: in the whole image, turned, and enlarged part by part."""

from typing import NamedTuple

import numpy as np

from lib.video.detection.people import size, upwards

LEAST = 0.2  # MoveNet's score

_SIDE = 512  # px, of what the network sees
_LARGER_SIDE = 768  # px, with which people of 60 px in 640 are found
_ENLARGED = 3  # times: so are those of 40 px
_OVERLAP = 1 / 2  # of a part
_NEAR_SIDE = 224  # px, for one person
_AROUND = 2.0  # of a person's size, the part in which they are looked for
_BORDER = 0.02  # of a part: who reaches into it is cut off


class View(NamedTuple):
    """A part of the image (columns x0 to x1, lines y0 to y1) and how the network sees it."""

    x0: int
    y0: int
    x1: int
    y1: int
    quarters: int = 0  # that it is turned anticlockwise
    side: int = _SIDE  # px, of the longer side

    def find(self, net, frame):
        """Return the `Pose`s that a `MoveNet` finds, in px of the frame, best first; not those that are cut off."""
        part = frame[self.y0 : self.y1, self.x0 : self.x1]
        found = net.find(np.ascontiguousarray(np.rot90(part, self.quarters)), self.side, LEAST)
        poses = [
            pose._replace(joints=np.column_stack([self.back(pose.joints[:, :2]), pose.joints[:, 2]])) for pose in found
        ]
        poses = [pose._replace(box=self.back_box(pose.box)) for pose in poses]
        return [pose for pose in poses if not self._cuts(pose.box, frame.shape[1::-1])]

    def back(self, points):
        """Return points (n, 2) of what the network saw in px of the frame."""
        sides = self.x1 - self.x0, self.y1 - self.y0
        for turn in range(self.quarters, 0, -1):
            points = np.stack([sides[1 - turn % 2] - points[:, 1], points[:, 0]], axis=1)
        return points + np.array([self.x0, self.y0], np.float32)

    def back_box(self, box):
        """Return a box (x0, y0, x1, y1) of what the network saw in px of the frame."""
        corners = self.back(box.reshape(2, 2))
        return np.concatenate([corners.min(0), corners.max(0)])

    def _cuts(self, box, frame_size):
        """Whether a border of the part, which is not one of the frame, cuts a box off."""
        low, high = np.array([self.x0, self.y0]), np.array([self.x1, self.y1])
        border = _BORDER * (high - low)
        return bool(
            ((box[:2] < low + border) & (low > 0)).any() or ((box[2:] > high - border) & (high < frame_size)).any()
        )


def views(width, height):
    """Return the `View`s of an image: all of it; and a list of others: turned, larger, and parts that are enlarged."""
    whole = View(0, 0, width, height)
    turned = [whole._replace(quarters=quarters) for quarters in (1, 2, 3)]
    (columns, wide), (lines, high) = _starts(width), _starts(height)
    parts = [View(x, y, x + wide, y + high) for y in lines for x in columns]
    larger, third = whole._replace(side=_LARGER_SIDE), -(-len(parts) // 3)
    return whole, [view for n, turn in enumerate(turned) for view in (larger, turn, *parts[n * third :][:third])]


def near(joints, width, height):
    """Return the `View` about a person with COCO's joints, turned so that they are as upright as it can be."""
    low, high = joints[:, :2].min(0), joints[:, :2].max(0)
    reach = _AROUND / 2 * size(joints)
    corners = np.concatenate([(low + high) / 2 - reach, (low + high) / 2 + reach])
    x0, y0 = np.clip(corners[:2], 0, [width - 1, height - 1]).astype(int).tolist()
    x1, y1 = np.clip(corners[2:], [x0 + 1, y0 + 1], [width, height]).astype(int).tolist()
    return View(x0, y0, x1, y1, quarters_of(joints), _NEAR_SIDE)


def quarters_of(joints):
    """Return by how many quarters anticlockwise a person with COCO's joints is turned to be as upright as it can be."""
    x, y = upwards(joints)
    return round(np.arctan2(x, -y) / (np.pi / 2)) % 4


def _starts(length):
    """Return where parts of a length begin, and how long they are."""
    part = -(-length // _ENLARGED)
    count = 1 + int(np.ceil((length - part) / (part * (1 - _OVERLAP))))
    return np.linspace(0, length - part, count).astype(int).tolist(), part
