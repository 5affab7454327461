"""Rendering of the result: the video with its skeletons in 2D beside a view of the people in 3D."""

from functools import lru_cache

import cv2
import numpy as np

from lib.body.skeleton import LEFT, LIMBS, RIGHT, ROOT
from lib.video.show.viewpoint import CLOSEST, FAR_OUT, Viewpoints

_LOWEST, _HIGHEST = 480, 1080  # px, of the panels

# RGB; red left and blue right as in `lib.eval.plots`
_LEFT, _RIGHT, _MIDDLE = (209, 73, 91), (43, 108, 176), (236, 233, 224)
_PEOPLE = ((15, 118, 110), (180, 83, 9), (109, 40, 217), (190, 24, 93), (77, 124, 15), (3, 105, 161))  # ids
_SKY, _GROUND, _HAZE, _LINES = (250, 251, 252), (221, 226, 232), (240, 242, 245), (160, 169, 180)
_OUTLINE = (30, 34, 42)

# m, half the thickness of the body at each joint, in the order of `JOINTS`
_RADII = np.array(
    [0.075, 0.075, 0.055, 0.04, 0.075, 0.055, 0.04, 0.08, 0.06, 0.065, 0.085, 0.055, 0.042, 0.03, 0.055, 0.042, 0.03]
)
_STARTS, _ENDS = np.array(LIMBS).T
_SIDES = [_LEFT if {a, b} & set(LEFT) else _RIGHT if {a, b} & set(RIGHT) else _MIDDLE for a, b in LIMBS]
_JOINT_SIDES = [_LEFT if j in LEFT else _RIGHT if j in RIGHT else _MIDDLE for j in range(len(_RADII))]
_HEAD = 10
_RING = np.array([[np.cos(angle), np.sin(angle), 0] for angle in np.linspace(0, 2 * np.pi, 12, endpoint=False)])
_HALF_TURN = np.linspace(-np.pi / 2, np.pi / 2, 10)

_FAINT = 0.55  # how far an interpolated pose fades
_DASH = 9  # px at a panel of 480 px
_GRID = 1.0  # m
_GRID_REACH = 12.0  # m at most
_SHADOW = 150  # of 255: how dark the shadow of what touches the ground is
_SHADOW_HEIGHT = 0.5  # m above the ground at which a shadow is down to 1 / e
_SHADOW_EDGE = 0.04  # m
_SHIFT = 4  # bits of a pixel's fraction that OpenCV draws with


class Renderer:
    """Renderer of a frame's two panels.

    Left, the video with the joints found in it (dashed and faint where they are interpolated); right, the people in
    the world, seen from beside the camera.

    Args:
        poses: `Poses`; frames are looked up in it one by one, so its arrays may be memory-mapped.
        panel_height: px; default: the video's height, but 480 to 1080.

    Attributes:
        size: (width, height) px of the images, even numbers.
        widths: px, of the left panel and the right one.
        views: `Viewpoints` of the right panel.
    """

    def __init__(self, poses, panel_height=None):
        self._poses = poses
        height = _even(panel_height or np.clip(poses.height, _LOWEST, _HIGHEST))
        left = _even(poses.width * height / poses.height)
        right = _even(np.clip(left, 0.8 * height, 16 / 9 * height))
        self.widths, self.size = (left, right), (left + right, height)
        self._unit = height / _LOWEST  # px of lines and letters
        self.views = Viewpoints(poses, right, height)
        shades = np.linspace(0, 1, height)[:, None] ** 1.5
        rows = (1 - shades) * _SKY + shades * _GROUND
        self._empty = np.ascontiguousarray(np.broadcast_to(rows.astype(np.uint8)[:, None], (height, right, 3)))
        if not self.views.moving:
            self._draw_ground(self._empty, self.views[0])

    def render(self, number, rgb):
        """Return the panels (height, width, 3) uint8 of frame `number`, whose image is `rgb` (any size), uint8 RGB."""
        people = [(person, index) for person in self._poses.people if (index := _index(person, number)) is not None]
        people.sort(key=lambda found: -found[0].camera[found[1], ROOT, 2])  # back to front
        panels = np.empty((*self.size[::-1], 3), np.uint8)
        self._draw_video(panels[:, : self.widths[0]], people, rgb)
        self._draw_world(panels[:, self.widths[0] :], people, self.views[number])
        return panels

    def _draw_video(self, canvas, people, rgb):
        size = canvas.shape[1::-1]
        smaller = rgb.shape[0] > size[1]
        cv2.resize(rgb, size, dst=canvas, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
        scale = np.array(size) / (self._poses.width, self._poses.height)
        for person, index in people:
            places = np.clip(person.keypoints[index, :, :2] * scale, -FAR_OUT, FAR_OUT)
            tall = np.ptp(places[:, 1]) / self._unit
            thick = float(np.clip(tall / 70, 1.5, 4)) * self._unit
            if person.bridged[index]:
                drawn = canvas.copy()
                self._draw_dashed(drawn, places, thick)
                cv2.addWeighted(drawn, 0.7, canvas, 0.3, 0, canvas)
            else:
                _draw_limbs(canvas, places, thick)
        for person, index in people:
            self._draw_id(canvas, person.id, person.keypoints[index, _HEAD, :2] * scale, person.bridged[index])

    def _draw_world(self, canvas, people, view):
        canvas[:] = self._empty
        if self.views.moving:
            self._draw_ground(canvas, view)
        limbs = []
        for person, index in people:
            joints = np.asarray(person.world[index], float)
            faint = _FAINT if person.bridged[index] else 0.0
            _draw_shadow(canvas, view, joints, 1 - faint)
            places, depth = view.project(joints)
            radii = view.focal * _RADII / depth
            edge = np.maximum(1.2 * self._unit, 0.18 * radii)
            bodies = _capsules(places[_STARTS], places[_ENDS], radii[_STARTS], radii[_ENDS])
            outlines = _capsules(places[_STARTS], places[_ENDS], (radii + edge)[_STARTS], (radii + edge)[_ENDS])
            raised = places - 0.35 * radii[:, None] * [1, 1]
            shine = _capsules(raised[_STARTS], raised[_ENDS], 0.3 * radii[_STARTS], 0.3 * radii[_ENDS])
            limbs += zip((depth[_STARTS] + depth[_ENDS]) / 2, zip(outlines, bodies, shine), _limb_colours(faint))
        for _, shapes, colours in sorted(limbs, key=lambda limb: -limb[0]):
            for shape, colour in zip(shapes, colours):
                cv2.fillConvexPoly(canvas, shape, colour, cv2.LINE_AA, _SHIFT)
        for person, index in people:
            place, _ = view.project(np.asarray(person.world[index, _HEAD], float) + [0, 0, 0.1])
            self._draw_id(canvas, person.id, place, person.bridged[index])

    def _draw_ground(self, canvas, view):
        """Draw a grid on the ground that fades out around the place where people stand."""
        height, width = canvas.shape[:2]
        middle = view.on_ground(np.array([width / 2, 0.8 * height]))[:2]
        reach = min(_GRID_REACH, 1.1 * view.project(np.array([*middle, 0]))[1])
        marks = np.arange(np.ceil(-reach / _GRID), np.floor(reach / _GRID) + 1) * _GRID
        along = np.linspace(-reach, reach, 49)
        for axis in (0, 1):
            lines = np.zeros((len(marks), len(along), 3))
            lines[..., axis] = (np.round(middle[axis] / _GRID) * _GRID + marks)[:, None]
            lines[..., 1 - axis] = middle[1 - axis] + along
            places, depth = view.project(lines)
            pieces = np.stack([places[:, :-1], places[:, 1:]], axis=2)
            far = np.linalg.norm((lines[:, 1:] + lines[:, :-1])[..., :2] / 2 - middle, axis=-1) / reach
            steps = np.ceil(8 * (1 - far**2)).astype(int)
            steps[(depth[:, 1:] <= CLOSEST) | (depth[:, :-1] <= CLOSEST)] = 0
            for step in range(1, 9):
                chosen = _fixed(pieces[steps == step])
                cv2.polylines(canvas, list(chosen), False, _mixed(_HAZE, _LINES, step / 8), 1, cv2.LINE_AA, _SHIFT)

    def _draw_dashed(self, canvas, places, thick):
        for (a, b), side in zip(places[np.array(LIMBS)], _SIDES):
            count = max(1, round(np.linalg.norm(b - a) / (2 * _DASH * self._unit)))
            cuts = np.linspace(0, 1, 2 * count + 1)[:-1].reshape(count, 2)
            dashes = _fixed(a + (b - a) * cuts[..., None])
            cv2.polylines(canvas, list(dashes), False, side, round(1.3 * thick), cv2.LINE_AA, _SHIFT)

    def _draw_id(self, canvas, number, head, faint):
        """Draw the person's number on a disc above the head, within the image."""
        text, scale = str(number), 0.5 * self._unit
        (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, scale, 1)
        radius = 11 * self._unit
        half = max(0.0, width / 2 - 0.5 * radius)
        limits = np.array([canvas.shape[1], canvas.shape[0]]) - radius - [half, 0]
        middle = np.clip(head - [0, 1.7 * radius], [radius + half, radius], limits)
        colour = _mixed(_PEOPLE[(number - 1) % len(_PEOPLE)], _GROUND, 0.5 * faint)
        for size, fill in ((radius, (255, 255, 255)), (radius - 1.5 * self._unit, colour)):
            (disc,) = _capsules(middle[None] - [half, 0], middle[None] + [half, 0], np.array([size]), np.array([size]))
            cv2.fillConvexPoly(canvas, disc, fill, cv2.LINE_AA, _SHIFT)
        corner = np.round(middle + [-width / 2, height / 2]).astype(int).tolist()
        weight = max(1, round(self._unit))
        cv2.putText(canvas, text, corner, cv2.FONT_HERSHEY_DUPLEX, scale, (255, 255, 255), weight, cv2.LINE_AA)


def _index(person, number):
    """Return the index of a frame in a person's arrays; None if the person is not in it."""
    index = int(np.searchsorted(person.frames, number))
    return index if index < len(person.frames) and person.frames[index] == number else None


def _draw_limbs(canvas, places, thick):
    ends, joints = _fixed(places[np.array(LIMBS)]), _fixed(places)
    for a, b in ends:
        cv2.line(canvas, a.tolist(), b.tolist(), _OUTLINE, round(1.8 * thick + 1), cv2.LINE_AA, _SHIFT)
    for (a, b), side in zip(ends, _SIDES):
        cv2.line(canvas, a.tolist(), b.tolist(), side, round(thick), cv2.LINE_AA, _SHIFT)
    for joint, side in zip(joints, _JOINT_SIDES):
        for radius, colour in ((1.5 * thick, _OUTLINE), (1.05 * thick, side)):
            cv2.circle(canvas, joint.tolist(), int(radius * 2**_SHIFT), colour, -1, cv2.LINE_AA, _SHIFT)


def _draw_shadow(canvas, view, joints, strength):
    """Darken the ground below a person, most where the body is near it; drawn small and enlarged, as it is soft."""
    discs = (joints * [1, 1, 0])[:, None] + 1.3 * _RADII[:, None, None] * _RING
    places, depth = view.project(discs)
    soft = _SHADOW_EDGE * view.focal / depth.mean()
    size = np.array([canvas.shape[1], canvas.shape[0]])
    low, high = np.clip([places.min((0, 1)) - 3 * soft, places.max((0, 1)) + 3 * soft + 1], 0, size).astype(int)
    if (high <= low).any():
        return
    shrunk = max(1.0, soft / 2)
    mask = np.zeros(np.ceil((high - low) / shrunk).astype(int)[::-1], np.uint8)
    shapes = _fixed((np.concatenate([places[_STARTS], places[_ENDS]], axis=1) - low) / shrunk)
    heights = np.maximum(0, joints[_STARTS, 2] + joints[_ENDS, 2]) / 2
    darkness = _SHADOW * strength * np.exp(-heights / _SHADOW_HEIGHT)
    for limb in np.argsort(darkness):
        cv2.fillConvexPoly(mask, cv2.convexHull(shapes[limb]), darkness[limb], cv2.LINE_8, _SHIFT)
    mask = cv2.resize(cv2.GaussianBlur(mask, (0, 0), soft / shrunk), (high - low).tolist())
    part = canvas[low[1] : high[1], low[0] : high[0]]
    cv2.multiply(part, cv2.cvtColor(255 - mask, cv2.COLOR_GRAY2RGB), dst=part, scale=1 / 255)


@lru_cache
def _limb_colours(faint):
    """Return outline, body and shine of every limb, faded."""
    shades = [(_OUTLINE, side, _mixed(side, (255, 255, 255), 0.35)) for side in _SIDES]
    return [[_mixed(colour, _GROUND, faint) for colour in limb] for limb in shades]


def _capsules(starts, ends, start_radii, end_radii):
    """Return outlines (n, 20, 2), fixed point, of thick lines with round ends: places (n, 2) px, radii (n,) px."""
    along = np.arctan2(ends[:, 1] - starts[:, 1], ends[:, 0] - starts[:, 0])[:, None]
    round_end = np.stack([np.cos(along + _HALF_TURN), np.sin(along + _HALF_TURN)], axis=-1)
    ends = ends[:, None] + end_radii[:, None, None] * round_end
    starts = starts[:, None] - start_radii[:, None, None] * round_end
    return _fixed(np.concatenate([ends, starts], axis=1))


def _fixed(places):
    return np.round(places * 2**_SHIFT).astype(np.int32)


def _mixed(colour, other, share):
    return tuple(round((1 - share) * a + share * b) for a, b in zip(colour, other))


def _even(size):
    return 2 * round(float(size) / 2)
