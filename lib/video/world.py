"""The world of a still camera: which way is up, where the ground is, how large each person is, from people alone.

Up is the direction in which people stand: from the ankles to the neck where legs and trunk are straight. The camera
counts as one more witness, that it is held level, of little weight. The ground is where feet rest. Everybody stands on
the same one: a person whose feet seem to be a little below or above it is smaller or taller than was assumed, and
becomes so, which leaves the place in the image as it is.
"""

import numpy as np

from lib.data.skeleton import ROOT
from lib.video.gaps import blocks
from lib.video.smoothing import penalised
from lib.video.stature import stature

ANKLES, NECK = [3, 6], 8
ANKLE = 0.07  # m above the ground, of a standing person
_STRAIGHT = np.cos(np.radians(25))  # legs and trunk of someone who stands
_LEVEL = 5  # frames of standing people that a level camera counts as
_LEANING = np.radians(8)  # a body that is so far from the others' direction counts half
_SEATED = 0.02  # what the trunk of someone who does not stand counts, of a standing frame, if it is nearly upright
_ROUNDS = 10  # of reweighting
_KEPT = 1024  # rows of what is collected of a person, at least, where there are as many

_RESTING = 0.4  # m/s, speed of an ankle that counts half as resting
_ABOVE_LOWER = 0.04  # m above the lower ankle at which the other one hardly counts
_STANDING = 0.15  # m around the level of a person's feet: what is higher is a step, a roof or a jump
_CROUCHING = 0.2  # what the feet of someone who does not stand count
_SAME_GROUND = 0.5  # log of the ratio of two people's sizes at most, if one ground is to explain it
_SURE = 30  # feet at rest, from which on a person's size counts as much as another's
_LEAST_DROP = 0.3  # m that feet are below the camera, so that the ground says something about sizes

_SETTLE_CUTOFF = 1.0  # Hz, of the correction of depths that keeps feet on the ground
_HEIGHT_ERROR, _DEPTH_ERROR = 0.02, 0.1  # m of an ankle's height, relative of a depth


def settle(people, times, height=None):
    """Put `Person`s upright on the ground: writes `world`, changes `camera` by sizes and depths.

    Args:
        people: arrays may be memory-mapped; they are gone through in blocks.
        times: (F,) s of all frames.
        height: m, of the first person's body; sizes are relative to a standard one by default.

    Returns:
        rotation (3, 3) and shift (3,) m: world = rotation @ camera + shift.
    """
    world = World()
    for person in people:
        for block in _blocks(person):
            world.add(person.camera[block])
    rotation = world.rotation()
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
    """Up from all of `add`, then the ground and people's sizes from all of `stand`, then `factors`; fed in blocks."""

    def __init__(self):
        self._bodies, self._feet = _Thinned(), {}

    def add(self, camera):
        """Take poses (n, 17, 3) m of one person, consecutive frames."""
        body = _unit(camera[:, NECK] - camera[:, ANKLES].mean(1))
        trunk = _unit(camera[:, NECK] - camera[:, ROOT])
        standing = _standing(camera, body)
        direction = np.where(standing[:, None], body, trunk)
        self._bodies.add(np.concatenate([direction, np.where(standing, 1, _SEATED)[:, None]], axis=1))

    def rotation(self):
        """Return (3, 3): camera axes -> world axes (x right, y forward, z up).

        The mean direction of bodies, in which those count less that lean from it (iteratively reweighted).
        """
        rows = np.concatenate([[[0.0, -1, 0, _LEVEL]], self._bodies.rows()])
        directions, weights = rows[:, :3], rows[:, 3].copy()
        for _ in range(_ROUNDS):
            up = _unit(weights @ directions)
            angle = np.arccos(np.clip(directions @ up, -1, 1))
            weights = rows[:, 3] / (1 + (angle / _LEANING) ** 2)
        right = _unit(np.array([1.0, 0, 0]) - up[0] * up)
        self._up = up
        return np.stack([right, np.cross(up, right), up])

    def stand(self, person, camera, times):
        """Take poses (n, 17, 3) m of a person, consecutive frames at times (n,) s; after `rotation`."""
        heights, resting = self._feet_of(camera[:, ANKLES], times)
        standing = _standing(camera, camera[:, NECK] - camera[:, ANKLES].mean(1))
        resting = resting * np.where(standing, 1, _CROUCHING)[:, None]
        self._feet.setdefault(person, _Thinned()).add(np.concatenate([heights, resting], axis=1))

    def shift(self):
        """Return (3,) m: what brings resting ankles to their height above the ground; after all of `stand`."""
        found = {person: _level(*np.split(feet.rows(), 2, axis=1)) for person, feet in self._feet.items()}
        self._levels = {person: level for person, (level, _) in found.items()}
        people = [person for person, level in self._levels.items() if level < -_LEAST_DROP]
        self._sizes = {}
        if not people:
            return np.array([0, 0, ANKLE - min(self._levels.values())])
        log = np.log([-self._levels[person] for person in people])
        sure = np.minimum([found[person][1] for person in people], _SURE)
        near = np.abs(log - log[:, None]) <= _SAME_GROUND
        together = near[np.argmax(near @ sure)]
        ground = -np.exp(np.average(log[together], weights=sure[together]))
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
        across = np.gradient(ankles[..., :2] / ankles[..., 2:], times, axis=0) * ankles[..., 2:]
        speed = np.linalg.norm(across, axis=-1)
        above = heights - heights.min(1, keepdims=True)
        return heights, np.exp(-((above / _ABOVE_LOWER) ** 2)) / (1 + (speed / _RESTING) ** 4)


class _Thinned:
    """Evenly spaced rows of a stream of any length: `_KEPT` to twice as many, where there are as many."""

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


def _standing(camera, body):
    """Return (n,) bool: legs and trunk of poses (n, 17, 3) are along the body's directions (n, 3)."""
    thighs = camera[:, [1, 4]] - camera[:, [2, 5]]
    shins = camera[:, [2, 5]] - camera[:, [3, 6]]
    parts = [*np.moveaxis(thighs, 1, 0), *np.moveaxis(shins, 1, 0), camera[:, NECK] - camera[:, ROOT]]
    return np.all([(_unit(part) * _unit(body)).sum(-1) > _STRAIGHT for part in parts], axis=0)


def _unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(min=1e-9)
