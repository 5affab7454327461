"""World of a still camera: the vertical direction, the ground, the size of each person.

Up is where people stand up to: each votes with the mean direction from ankles to neck of the frames in which trunk and
legs are straight. A vote counts less if the person sways or leans from the others, or would have the camera lie on its
side; that the camera is held level is one more vote. Upright lines of what is built correct it. The ground is where feet rest, the lowest such place that is not a
slip. Everybody who can be is put on it: a person whose feet seem to be a little above or below it is taller or smaller
than was assumed. They become so, and their depths follow their feet, which leaves them in place in the image.
"""

import numpy as np

from lib.body.skeleton import ROOT
from lib.video.lift.smoothing import penalised
from lib.video.lift.stature import stature
from lib.video.lift.verticals import refine
from lib.video.track.gaps import blocks

ANKLES, NECK = [3, 6], 8
ANKLE = 0.07  # m above the ground, of a standing person
_STRAIGHT = np.cos(np.radians(25))  # legs and trunk of someone who stands
_STRIDING, _OTHERWISE = 0.2, 0.02  # what a frame counts with one straight leg, and with none, of one who stands
_ROLL, _TILT = np.radians(30), np.radians(60)  # a body off the image's vertical by so much counts half
_MOST = 30  # frames, that a person counts at most
_UNSTEADY = np.radians(5)  # a person whose direction changes by so much (std) counts half
_LEVEL = 2  # frames that a level camera counts as
_LEANING = np.radians(8)  # a person, or a level camera, that is so far from the others' direction counts half
_ROUNDS = 10  # of reweighting
_KEPT = 1024  # least number of entries collected of a person, if there are as many

_RESTING = 0.4  # m/s across the image, of an ankle that counts half as resting; along it jitters too much
_NEAREST = 0.1  # m
_ABOVE_LOWER = 0.04  # m above the lower ankle at which the other one hardly counts
_STANDING = 0.15  # m around the level of a person's feet: what is higher is a step, a roof or a jump
_CROUCHING = 0.05  # what the feet of someone who does not stand count
_SAME_GROUND = 0.5  # log of the ratio of two people's sizes at most, if one ground is to explain it
_SURE = 30  # feet at rest, from which on a person's size counts as much as another's
_FEW = 0.1  # the lowest ground is that of at least this share of the feet at rest
_LEAST_DROP = 0.3  # m that feet are below the camera, so that the ground says something about sizes

_SETTLE_CUTOFF = 1.5  # Hz, of the correction of depths that keeps feet on the ground
_HEIGHT_ERROR, _DEPTH_ERROR = 0.02, 0.1  # m of an ankle's height, relative of a depth


def settle(people, times, height=None, lines=None):
    """Put `Person`s upright on the ground: write `world`, change `camera` by sizes and depths.

    Args:
        people: arrays may be memory-mapped; they are gone through in blocks.
        times: (F,) s of all frames.
        height: m, of the first person's body; sizes are relative to a standard one by default.
        lines: of an image, as of `lib.video.lift.verticals.lines`.

    Returns:
        rotation (3, 3) and shift (3,) m: world = rotation @ camera + shift.
    """
    world = World()
    for person in people:
        for block in _blocks(person):
            world.add(person.id, person.camera[block])
    rotation = world.rotation(lines)
    for person in people:
        for block in _blocks(person):
            world.stand(person.id, person.camera[block], times[person.frames[block]])
    shift, unit = world.shift(), 1.0
    if height:
        unit = height / (world.size(people[0].id) * stature(people[0]))
    shift *= unit
    for person in people:
        scale = unit * world.size(person.id)
        for segment in person.segments():
            feet = person.camera[segment][:, [ROOT, *ANKLES]]
            deeper = world.factors(person.id, feet, times[person.frames[segment]]) - 1
            for block in blocks(segment):
                camera = person.camera[block]
                moved = deeper[block.start - segment.start : block.stop - segment.start, None] * camera[:, ROOT]
                person.camera[block] = scale * (camera + moved[:, None])
                person.world[block] = person.camera[block] @ rotation.T + shift
    return rotation, shift


def _blocks(person):
    return [block for segment in person.segments() for block in blocks(segment)]


class World:
    """Estimator of up from all of `add`, then of the ground and people's sizes from all of `stand`, then `factors`; fed in blocks."""

    def __init__(self):
        self._bodies, self._feet = {}, {}

    def add(self, person, camera):
        """Take poses (n, 17, 3) m of a person."""
        body, straight = _body(camera)
        upright = np.where(straight[:, None] > _OTHERWISE, body, _unit(camera[:, NECK] - camera[:, ROOT]))
        weights = straight * _plausible(upright)
        self._bodies[person] = self._bodies.get(person, 0) + np.array([*(weights @ upright), weights.sum()])

    def rotation(self, lines=None):
        """Return (3, 3): camera axes -> world axes (x right, y forward, z up); after all of `add`.

        The mean direction of people, in which those count less who sway or lean from it (iteratively reweighted), moved
        to what `lines` say.
        """
        sums = np.stack(list(self._bodies.values()))
        length = np.linalg.norm(sums[:, :3], axis=1) / np.maximum(sums[:, 3], 1e-9)
        variance = 2 * (1 - np.minimum(length, 1))
        means = _unit(sums[:, :3])
        votes = np.minimum(sums[:, 3], _MOST) / (1 + variance / _UNSTEADY**2) * _plausible(means)
        means, votes = np.concatenate([[[0, -1, 0]], means]), np.concatenate([[_LEVEL], votes])
        weights = votes
        for _ in range(_ROUNDS):
            self._up = _unit(weights @ means)
            angle = np.arccos(np.clip(means @ self._up, -1, 1))
            weights = votes / (1 + (angle / _LEANING) ** 2)
        if lines:
            self._up = refine(self._up, *lines)
        right = np.array([1.0, 0, 0]) if abs(self._up[0]) < 0.9 else np.cross([0, 0, 1], self._up)  # on its side
        right = _unit(right - right @ self._up * self._up)
        return np.stack([right, np.cross(self._up, right), self._up])

    def stand(self, person, camera, times):
        """Take poses (n, 17, 3) m of a person, consecutive frames at times (n,) s; after `rotation`."""
        heights, resting = self._feet_of(camera[:, ANKLES], times)
        resting = resting * np.where(_body(camera)[1] > _OTHERWISE, 1, _CROUCHING)[:, None]
        self._feet.setdefault(person, _Thinned()).add(np.concatenate([heights, resting], axis=1))

    def shift(self):
        """Return (3,) m: what brings resting ankles to their height above the ground; after all of `stand`."""
        found = {person: _level(*np.split(feet.rows(), 2, axis=1)) for person, feet in self._feet.items()}
        self._levels = {person: level for person, (level, _) in found.items()}
        people = sorted((p for p, level in self._levels.items() if level < -_LEAST_DROP), key=self._levels.get)
        self._sizes = {}
        if not people:
            return np.array([0, 0, ANKLE - min(self._levels.values())])
        log = np.log([-self._levels[person] for person in people])
        rested = np.array([found[person][1] for person in people])
        near = np.abs(log - log[:, None]) <= _SAME_GROUND
        together = near[np.argmax(near @ rested >= _FEW * rested.sum())]
        ground = -np.exp(np.average(log[together], weights=np.minimum(rested, _SURE)[together]))
        for person in np.array(people)[together].tolist():
            self._sizes[person] = ground / self._levels[person]
            self._levels[person] = ground
        return np.array([0, 0, ANKLE - ground])

    def size(self, person):
        """Return how large a person is, of the standard size; after `shift`."""
        return self._sizes.get(person, 1.0)

    def factors(self, person, points, times):
        """Return (n,) by how much depths change so that the person's feet rest at one height; after `shift`.

        Args:
            points: (n, 3, 3) m: the root and both ankles in consecutive frames at times (n,) s, before `size`.
        """
        points = self.size(person) * points.astype(np.float64)
        drop, level = points[:, 0] @ self._up, self._levels[person]
        heights, resting = self._feet_of(points[:, 1:], times)
        off = level - heights
        resting = resting / (1 + (off / _STANDING) ** 4)
        gain = (_DEPTH_ERROR / _HEIGHT_ERROR) ** 2
        weights = 1 + gain * drop**2 * resting.sum(1)
        wanted = gain * drop * (resting * off).sum(1) / weights
        return np.exp(penalised(wanted[:, None], weights, times, _SETTLE_CUTOFF)[:, 0] if len(points) > 2 else wanted)

    def _feet_of(self, ankles, times):
        """Return heights (n, 2) m of ankles (n, 2, 3) above the camera, and how much each is at rest, 0 to 1."""
        heights = ankles @ self._up
        if len(times) < 2:
            return heights, np.ones_like(heights)
        depth = np.maximum(ankles[..., 2:], _NEAREST)
        speed = np.linalg.norm(np.gradient(ankles[..., :2] / depth, times, axis=0) * depth, axis=-1)  # in the image
        above = heights - heights.min(1, keepdims=True)
        return heights, np.exp(-((above / _ABOVE_LOWER) ** 2)) / (1 + (speed / _RESTING) ** 4)


class _Thinned:
    """Evenly spaced entries of a stream of any length: `_KEPT` to twice as many, if there are as many."""

    def __init__(self):
        self._rows, self._every, self._skip = None, 1, 0

    def add(self, rows):
        taken = rows[self._skip :: self._every]
        self._skip = (self._skip - len(rows)) % self._every
        self._rows = np.concatenate([self._rows, taken]) if self._rows is not None else taken
        while len(self._rows) > 2 * _KEPT:
            self._skip += self._every * (len(self._rows) % 2)
            self._rows, self._every = self._rows[::2].copy(), 2 * self._every

    def rows(self):
        return self._rows


def _level(heights, resting):
    """Return the height at which feet rest, the lowest such, and how often they did: of heights and weights (n, 2)."""
    heights, weights = heights.ravel(), resting.ravel()
    near = np.abs(heights - _quantile(heights, weights, 0.1)) < _STANDING
    return _quantile(heights[near], weights[near], 0.5), weights.sum()


def _quantile(values, weights, share):
    order = np.argsort(values)
    return values[order][np.searchsorted(np.cumsum(weights[order]), share * weights.sum())]


def _body(camera):
    """Return directions (n, 3) from the ankles to the neck of poses (n, 17, 3), and how much they say (n,).

    Someone stands whose trunk and legs are along it; with one straight leg, they may be walking.
    """
    body = _unit(camera[:, NECK] - camera[:, ANKLES].mean(1))
    ends = camera[:, [NECK, 1, 2, 4, 5]] - camera[:, [ROOT, 2, 3, 5, 6]]
    trunk, *legs = ((_unit(ends) * body[:, None]).sum(-1) > _STRAIGHT).T
    right, left = legs[0] & legs[1], legs[2] & legs[3]
    return body, np.select([trunk & right & left, trunk & (right | left)], [1, _STRIDING], _OTHERWISE)


def _plausible(directions):
    """Return (n,) how well directions (n, 3) fit a person on their feet before a camera not turned on its side."""
    roll, tilt = np.arcsin(np.minimum(np.abs(directions[:, [0, 2]]), 1)).T
    roll = np.where(directions[:, 1] < 0, roll, np.pi - roll)
    return 1 / (1 + (roll / _ROLL) ** 4 + (tilt / _TILT) ** 4)


def _unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(min=1e-9)
