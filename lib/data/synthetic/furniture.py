"""Things around rendered people, as meshes: tables, chairs, cupboards, posts, bushes, boards."""

from functools import cache
from typing import NamedTuple

import numpy as np

from lib.data.synthetic.textures import SIDE, colour

_ROUND = (12, 7)  # points of a round thing around and along its axis
_FACES = 4  # squares along a side of a large box's faces; the texture is seen at their corners
_MANY, _CHANGE = 150, 0.25  # things that stand; change of size and brightness, as a power of e
_PATTERNED = 0.5  # share of things with a texture


class Mesh(NamedTuple):
    """Closed mesh of V vertices, m."""

    vertices: np.ndarray  # (V, 3) float32
    normals: np.ndarray  # (V, 3) float32: unit vectors outwards
    faces: np.ndarray  # (T, 3) int32, anticlockwise from outside
    colours: np.ndarray  # (V, 3) float32, 0 to 1


def join(meshes):
    """Return several meshes as one."""
    first = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    faces = [mesh.faces + start for mesh, start in zip(meshes, first)]
    vertices, normals, colours = (
        np.concatenate([getattr(mesh, name) for mesh in meshes]) for name in ("vertices", "normals", "colours")
    )
    return Mesh(vertices, normals, np.concatenate(faces).astype(np.int32), colours)


class Things:
    """Collection of things, each of which is drawn in many scenes: turned, of another size, and brighter or darker."""

    def __init__(self, textures, rng):
        self._standing = [_draw(textures, rng, (_cupboard, _table, _chair, _post, _bush, _board)) for _ in range(_MANY)]
        self._hanging = [_centred(_draw(textures, rng, (_board, _ball, _beam, _bush))) for _ in range(_MANY // 2)]

    def put(self, place, rng, standing=True):
        """Return the `Mesh` of a random thing that stands at a place (3,) m, or hangs around it."""
        things = self._standing if standing else self._hanging
        mesh = things[rng.integers(len(things))]
        angle, change = rng.uniform(0, 2 * np.pi), np.exp(rng.uniform(-_CHANGE, _CHANGE, 2))
        cos, sin = np.cos(angle), np.sin(angle)
        turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], np.float32)
        vertices = mesh.vertices @ (np.float32(change[0]) * turn.T) + np.array(place, np.float32)
        return Mesh(vertices, mesh.normals @ turn.T, mesh.faces, mesh.colours * np.float32(change[1]))


def _draw(textures, rng, kinds):
    parts = kinds[rng.integers(len(kinds))](rng)
    return join([part._replace(colours=tint) for part, tint in _coloured(parts, textures, rng)])


def _centred(mesh):
    return mesh._replace(vertices=mesh.vertices - mesh.vertices.mean(0))


def _coloured(parts, textures, rng):
    """Yield parts of a thing and their colours: of one or two materials."""
    materials = [_material(textures, rng) for _ in range(2)]
    share = rng.choice([0.0, 0.5])
    for part in parts:
        yield part, materials[int(rng.random() < share)](part.vertices)


def _material(textures, rng):
    """Return a function from places (V, 3) to colours (V, 3)."""
    plain = colour(rng, (0.0, 0.6), (0.15, 0.9))
    if rng.random() > _PATTERNED:
        return lambda places: np.tile(plain, (len(places), 1))
    number = textures.choose(["planks", "stripes", "tiles", "clutter", "leaves", "carpet", "plaster", "shelves"], rng)
    along = rng.standard_normal((3, 2)).astype(np.float32) * rng.uniform(0.2, 1.0)
    coarse = np.float32(SIDE / 32)

    def pattern(places):
        u, v = (places @ along).T
        return textures(number, u, v, np.full(len(u), coarse))

    return pattern


def box(low, high, squares=1):
    """Return a box between corners (3,), its faces divided into squares; its colours are 0."""
    unit = _unit_box(squares)
    low, high = np.asarray(low, np.float32), np.asarray(high, np.float32)
    return unit._replace(vertices=low + unit.vertices * (high - low))


@cache
def _unit_box(squares):
    vertices, normals, faces = [], [], []
    steps = np.linspace(0, 1, squares + 1)
    grid = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)
    corner = (np.arange(squares)[:, None] * (squares + 1) + np.arange(squares)).reshape(-1, 1)
    halves = np.concatenate([corner + [0, squares + 1, squares + 2], corner + [0, squares + 2, 1]])
    for axis in range(3):
        for side in (0, 1):
            places = np.full((len(grid), 3), float(side))
            places[:, [(axis + 1) % 3, (axis + 2) % 3]] = grid
            faces.append((halves if side else halves[:, ::-1]) + len(grid) * len(vertices))
            vertices.append(places)
            normals.append(np.tile(np.eye(3)[axis] * (2 * side - 1), (len(grid), 1)))
    return _mesh(*map(np.concatenate, (vertices, normals, faces)))


def ball(centre, radii, square=1.0):
    """Return an ellipsoid; square: 1 for round, towards 0 for a cylinder along z (a superellipsoid)."""
    yaw, tilt, faces = _round_grid()
    across, up = np.cos(tilt).clip(0) ** square, np.sign(np.sin(tilt)) * np.abs(np.sin(tilt)) ** square
    unit = np.stack([np.cos(yaw) * across, np.sin(yaw) * across, up], axis=-1)
    normals = unit / radii
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return _mesh(np.asarray(centre) + unit * radii, normals, faces)


@cache
def _round_grid():
    """Return angles (V,) around and along a ball, and faces (T, 3)."""
    around, along = _ROUND
    yaw, tilt = np.meshgrid(
        np.linspace(0, 2 * np.pi, around, endpoint=False), np.linspace(-np.pi / 2, np.pi / 2, along), indexing="ij"
    )
    corner = np.arange(around * along)
    column, row = np.divmod(corner, along)
    beside = (column + 1) % around * along + row
    squares = np.stack([corner, beside, beside + 1, corner + 1], axis=1)[row < along - 1]
    return yaw.ravel(), tilt.ravel(), np.concatenate([squares[:, [0, 1, 2]], squares[:, [0, 2, 3]]])


def _mesh(vertices, normals, faces):
    black = np.zeros(vertices.shape, np.float32)
    return Mesh(vertices.astype(np.float32), normals.astype(np.float32), faces.astype(np.int32), black)


def _cupboard(rng):
    wide, deep, high = rng.uniform([0.3, 0.3, 0.3], [1.5, 0.7, 1.6])
    parts = [box([-wide / 2, -deep / 2, 0], [wide / 2, deep / 2, high], _FACES)]
    if rng.random() < 0.4:  # a smaller thing on it
        x, y, z = rng.uniform([0.1, 0.1, 0.1], [0.4, 0.3, 0.5]) * [wide, deep, 1]
        parts.append(box([-x, -y, high], [x, y, high + z], 1))
    return parts


def _table(rng):
    wide, deep, high, thick = rng.uniform([0.6, 0.5, 0.4, 0.02], [1.8, 0.9, 1.05, 0.08])
    leg = rng.uniform(0.02, 0.05)
    x, y = wide / 2 - leg, deep / 2 - leg
    legs = [box([i * x - leg, j * y - leg, 0], [i * x + leg, j * y + leg, high]) for i in (-1, 1) for j in (-1, 1)]
    return [box([-wide / 2, -deep / 2, high], [wide / 2, deep / 2, high + thick], _FACES), *legs]


def _chair(rng):
    wide, high, back = rng.uniform([0.38, 0.40, 0.3], [0.6, 0.5, 0.7])
    half, leg = wide / 2, rng.uniform(0.015, 0.03)
    x = half - leg
    feet = [box([i * x - leg, j * x - leg, 0], [i * x + leg, j * x + leg, high]) for i in (-1, 1) for j in (-1, 1)]
    soft = rng.uniform(0.03, 0.15)
    return [
        box([-half, -half, high - soft], [half, half, high], 2),
        box([-half, half - 0.3 * soft - 0.03, high], [half, half, high + back], 2),
        *feet,
    ]


def _post(rng):
    radius, high = rng.uniform([0.03, 0.8], [0.2, 3.0])
    return [ball([0, 0, high / 2], [radius, radius, high / 2], 0.2)]


def _bush(rng):
    radii = rng.uniform(0.15, 0.5, (rng.integers(2, 6), 1)) * rng.uniform(0.8, 1.2, 3)
    return [ball([*rng.uniform(-0.3, 0.3, 2), size[2] * rng.uniform(0.6, 1.6)], size) for size in radii]


def _board(rng):
    wide, high, low = rng.uniform([0.2, 0.2, 0.0], [1.2, 1.0, 0.5])
    return [box([-wide / 2, -0.02, low], [wide / 2, 0.02, low + high], _FACES)]


def _ball(rng):
    return [ball([0, 0, 0], np.full(3, rng.uniform(0.06, 0.25)) * rng.uniform(0.8, 1.2, 3))]


def _beam(rng):
    long, thick = rng.uniform([0.5, 0.02], [2.0, 0.12])
    flat = box([-thick, -thick, -long / 2], [thick, thick, long / 2], 2)
    angle = rng.uniform(0, np.pi)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]], np.float32)
    return [flat._replace(vertices=flat.vertices @ turn.T, normals=flat.normals @ turn.T)]
