"""Places where rendered people are: rooms, streets, landscapes and studios of textured planes, with exact depth."""

from typing import NamedTuple

import cv2
import numpy as np

from lib.data.synthetic.render import FARTHEST
from lib.data.synthetic.textures import SIDE, colour

_PROFILE = 512  # points of a wall's uneven top, which repeats
_GRAZING = 1e-4  # cosine at least, times a ray's length


class Plane(NamedTuple):
    """Textured plane that is seen from one side.

    normal, across, up: (3,) unit vectors, world; the normal points away from the person.
    distance: m along the normal, from the world's origin.
    texture: its number; scale: m, side of its square; shift: (2,) of it, in squares.
    top: (_PROFILE,) m, height up to which a wall reaches along its length, every 8 scales again; None: any height.
    tint: (3,) factor of its colours; contrast: factor of the difference from 0.5.
    """

    normal: np.ndarray
    across: np.ndarray
    up: np.ndarray
    distance: float
    texture: int
    scale: float
    shift: np.ndarray
    top: np.ndarray | None
    tint: np.ndarray
    contrast: float


class Surroundings(NamedTuple):
    """Surroundings of a person.

    planes: list of `Plane`s; haze: (3,) colour of what is far away; sight: m, distance at which 63 % of a colour is haze.
    lamp: (3,) m, place of a lamp or the middle of a bright spot; reach: m, distance at which its light has halved.
    room: m, radius around the person within which things may stand.
    ground: m, its height.
    """

    planes: list
    haze: np.ndarray
    sight: float
    lamp: np.ndarray
    reach: float
    room: float
    ground: float


def draw_surroundings(textures, place, ground, rng):
    """Return random `Surroundings`.

    Args:
        textures: `Textures`.
        place: (2,) m, where the person stands.
        ground: m, its height.
        rng: NumPy generator.
    """
    kind = list(_SHARES)[np.searchsorted(np.cumsum(list(_SHARES.values())), rng.random())]
    return _PLACES[kind](_Builder(textures, np.asarray(place), ground, rng), rng)


class _Builder:
    """Maker of planes around a place."""

    def __init__(self, textures, place, ground, rng):
        self.textures, self.place, self.ground, self.rng = textures, place, ground, rng

    def level(self, height, kinds, scale, facing=-1.0):
        """Return a floor (facing -1) or a ceiling (1) at a height above the ground."""
        angle = self.rng.uniform(0, 2 * np.pi)
        across, up = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0]])
        distance = facing * (self.ground + height)
        return self._plane(np.array([0, 0, facing]), across, up, distance, kinds, scale, None)

    def wall(self, angle, away, kinds, scale, height=None, uneven=0.0):
        """Return a wall `away` m from the person; uneven: m, std of its height along it."""
        normal, across = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0]])
        top = None if height is None else np.full(_PROFILE, self.ground + height)
        if uneven:
            steps = np.fft.rfftfreq(_PROFILE)
            steps[0] = np.inf
            waves = np.fft.irfft(np.fft.rfft(self.rng.standard_normal(_PROFILE)) * steps ** -self.rng.uniform(0.6, 1.3))
            top += uneven * waves / waves.std()
        return self._plane(normal, across, np.array([0, 0, -1]), normal[:2] @ self.place + away, kinds, scale, top)

    def _plane(self, normal, across, up, distance, kinds, scale, top):
        rng = self.rng
        normal, across, up = (axis.astype(np.float32) for axis in (normal, across, up))
        return Plane(
            normal,
            across,
            up,
            distance,
            self.textures.choose(kinds, rng),
            rng.uniform(*scale),
            rng.random(2, np.float32),
            top,
            colour(rng, (0.0, 0.08), (0.75, 1.15)),
            rng.uniform(0.6, 1.1),
        )


def _room(make, rng):
    turn, high = rng.uniform(0, np.pi / 2), rng.uniform(2.4, 4.5)
    wall = [(["plaster", "plaster", "stripes", "bricks", "tiles", "planks"], (1.5, 4.0))] * 4
    if rng.random() < 0.6:
        wall[rng.integers(4)] = (["shelves", "windows", "clutter", "planks"], (1.8, 4.0))
    away = rng.uniform(1.2, 5.0, 4)
    return Surroundings(
        [
            make.level(0, ["planks", "tiles", "carpet", "plaster"], (1.0, 3.0)),
            make.level(high, ["plaster", "planks", "tiles"], (2.0, 4.0), 1.0),
            *(make.wall(turn + n * np.pi / 2, away[n], *wall[n]) for n in range(4)),
        ],
        colour(rng, (0.0, 0.2)),
        1e3,
        np.r_[make.place + rng.uniform(-3, 3, 2), make.ground + high - 0.3],
        rng.uniform(2, 8),
        away.min(),
        make.ground,
    )


def _street(make, rng):
    turn = rng.uniform(0, 2 * np.pi)
    facade = ["windows", "windows", "windows", "bricks", "plaster", "clutter"]
    walls = [
        make.wall(turn, rng.uniform(2.5, 12), facade, (4, 9), rng.uniform(3, 15)),
        make.wall(turn + np.pi, rng.uniform(4, 25), facade, (4, 9), rng.uniform(3, 15)),
        make.wall(turn + rng.choice([-1, 1]) * np.pi / 2, rng.uniform(12, 60), facade, (5, 12), rng.uniform(4, 20)),
    ]
    ground = make.level(0, ["asphalt", "asphalt", "tiles", "bricks"], (1.5, 4.0))
    return _outdoors(make, [ground, *walls[: rng.integers(1, 4)]], rng.uniform(60, 300), rng, 3.0)


def _landscape(make, rng):
    turn = rng.uniform(0, 2 * np.pi)
    walls = []
    for away in np.sort(rng.uniform(4, 80, rng.integers(0, 4))):
        high = away * rng.uniform(0.03, 0.4) + 0.5
        angles = turn + np.arange(3) * 2 * np.pi / 3 + rng.uniform(-0.4, 0.4)
        scale = (0.06 * away + 1, 0.2 * away + 2)
        kinds = ["leaves", "leaves", "grass", "clutter", "plaster"]
        walls += [make.wall(angle, away, kinds, scale, high, high * rng.uniform(0.05, 0.3)) for angle in angles]
    ground = make.level(0, ["grass", "grass", "sand", "asphalt", "leaves"], (1.0, 4.0))
    return _outdoors(make, [ground, *walls], rng.uniform(40, 300), rng, 6.0)


def _outdoors(make, planes, sight, rng, room):
    sky = make.level(rng.uniform(30, 80), ["clouds"], (60, 200), 1.0)
    sky = sky._replace(tint=np.full(3, rng.uniform(0.8, 1.3), np.float32))
    lamp = np.r_[make.place + rng.uniform(-6, 6, 2), make.ground]
    return Surroundings(
        [*planes, sky], colour(rng, (0.0, 0.25), (0.6, 0.95), (0.5, 0.7)), sight, lamp, 30.0, room, make.ground
    )


def _studio(make, rng):
    """Return walls and floor of much the same colour, or an image out of focus behind the person."""
    kinds = ["plaster"] if rng.random() < 0.5 else ["blurred"]
    turn, away = rng.uniform(0, 2 * np.pi), rng.uniform(1.5, 6.0)
    walls = [make.wall(turn + n * 2 * np.pi / 3, away, kinds, (3, 8)) for n in range(3)]
    tint = walls[0].tint
    floor = make.level(0, [*kinds, "carpet", "planks"], (2, 5))
    planes = [plane._replace(tint=tint, texture=walls[0].texture) for plane in walls]
    if rng.random() < 0.6:
        floor = floor._replace(tint=tint * rng.uniform(0.7, 1.1), texture=walls[0].texture)
    lamp = np.r_[make.place + rng.uniform(-2, 2, 2), make.ground + rng.uniform(0, 3)]
    return Surroundings([floor, *planes], colour(rng), 1e3, lamp, rng.uniform(2, 6), 1.5, make.ground)


_PLACES = {"room": _room, "street": _street, "landscape": _landscape, "studio": _studio}
_SHARES = {"room": 0.4, "street": 0.2, "landscape": 0.25, "studio": 0.15}


def see(surroundings, textures, origin, rays, focal):
    """Return the surroundings as a camera sees them.

    Args:
        origin: (3,) m, world: the camera's place.
        rays: (3, H, W) float32, world; of length 1 along the camera's axis.
        focal: px.

    Returns:
        image (H, W, 3) float32, 0 to 1; depth (H, W) float32, m along the camera's axis, at most `FARTHEST`.
    """
    shape, origin = rays.shape[1:], origin.astype(np.float32)
    rays = rays.reshape(3, -1)
    depth, seen = _nearest(surroundings.planes, origin, rays)
    image = np.empty((rays.shape[1], 3), np.float32)
    image[seen < 0] = surroundings.haze
    for number in np.flatnonzero(np.bincount(seen + 1)[1:]):
        pixels = np.flatnonzero(seen == number)
        away = depth[pixels]
        own = np.stack([np.take(axis, pixels) for axis in rays])
        colours = _texture(surroundings.planes[number], textures, origin, own, away, focal)
        clear = np.exp(away / np.float32(-surroundings.sight))
        colours *= (clear * _light(surroundings, origin, own, away))[:, None]
        if surroundings.sight < 5 * FARTHEST:
            colours += (1 - clear)[:, None] * surroundings.haze
        image[pixels] = colours
    return np.clip(image, 0, 1, out=image).reshape(*shape, 3), depth.reshape(shape)


def _texture(plane, textures, origin, rays, depth, focal):
    """Return colours (n, 3) of a plane where rays (3, n) meet it at a depth (n,)."""
    u, v = (
        (axis @ rays * depth + axis @ origin) * np.float32(1 / plane.scale) + shift
        for axis, shift in zip((plane.across, plane.up), plane.shift)
    )
    length = np.sqrt(np.square(rays).sum(0))
    cosine = np.maximum(plane.normal @ rays, np.float32(0.02) * length)  # of the slant, times the ray's length
    texels = depth * np.float32(SIDE / focal / plane.scale) * np.sqrt(length / cosine)
    return textures(plane.texture, u, v, texels) * (np.float32(plane.contrast) * plane.tint) + (
        np.float32(0.5 - 0.5 * plane.contrast) * plane.tint
    )


def _light(surroundings, origin, rays, depth):
    """Return the brightness (n,) of the light where rays (3, n) end at a depth (n,)."""
    away = depth * rays + (origin - surroundings.lamp).astype(np.float32)[:, None]
    return np.float32(0.55) + np.float32(0.6) / (1 + np.square(away).sum(0) * np.float32(surroundings.reach**-2))


def soften(image, rng):
    """Return an image (H, W, 3) more or less out of focus."""
    share = rng.random()
    sigma = 0.0 if share < 0.4 else rng.uniform(0.003, 0.01) if share < 0.8 else rng.uniform(0.01, 0.04)
    return cv2.GaussianBlur(image, (0, 0), sigma * len(image)) if sigma else image


def _nearest(planes, origin, rays):
    """Return the depth (n,) of the plane that each ray (3, n) meets first, and that plane's number, -1 for none."""
    depth = np.full(rays.shape[1], FARTHEST, np.float32)
    seen = np.full(rays.shape[1], -1, np.int8)
    for number, plane in enumerate(planes):
        gap = np.float32(plane.distance) - plane.normal @ origin
        if gap <= 0:  # the camera is behind it
            continue
        reached = gap / np.maximum(plane.normal @ rays, np.float32(_GRAZING))
        hit = np.flatnonzero(reached < depth)
        if plane.top is not None:
            away, own = reached[hit], [np.take(axis, hit) for axis in rays]
            along = (own[0] * plane.across[0] + own[1] * plane.across[1]) * away + origin @ plane.across
            step = (along * np.float32(_PROFILE / 8 / plane.scale)).astype(np.int32) & (_PROFILE - 1)
            hit = hit[origin[2] + away * own[2] < plane.top[step]]
        depth[hit] = reached[hit]
        seen[hit] = number
    return depth, seen
