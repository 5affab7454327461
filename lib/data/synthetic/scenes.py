"""Scenes of crops: a person before a camera, perhaps a second one, things around and before them, in random surroundings."""

from typing import NamedTuple

import numpy as np

from lib.data.synthetic.crop_cameras import CropCamera
from lib.data.synthetic.furniture import Mesh, Things, join
from lib.data.synthetic.light import Light
from lib.data.synthetic.surroundings import Surroundings, draw_surroundings, see
from lib.data.synthetic.textures import Textures

_APART = (0.35, 1.4)  # m, from one person to the other
_NEAREST = 0.3  # m, from the camera to a thing, a second person or the ground
_BEFORE, _AROUND = (
    0.25,
    (0, 4),
)  # share of scenes with a thing before the person; number of things around, from and below
_LINE = (0.4, 0.85)  # where on the line from the camera to a joint such a thing is
_STANDING = 0.6  # share of those that stand on the ground
_AWAY = (0.9, 1.2)  # m, from the person to a thing around at least; farthest in the smallest room
_JUMP, _HIGH = 0.1, 0.5  # share of people who are above the ground; m at most


class Person(NamedTuple):
    """Posed person in world axes, m."""

    now: np.ndarray  # (V, 3) vertices
    later: np.ndarray  # (V, 3) those one frame later
    normals: np.ndarray  # (V, 3)
    colours: np.ndarray  # (V, 3), 0 to 1
    joints: np.ndarray  # (17, 3), Human3.6M's
    points: np.ndarray  # (23, 3), COCO's and of the feet


class Scene(NamedTuple):
    """Scene that a camera sees."""

    camera: CropCamera
    people: list  # of `Person`s, the one in question first
    things: Mesh | None
    surroundings: Surroundings
    light: Light


class SceneMaker:
    """Maker of random scenes.

    Args:
        rng: NumPy generator of the textures and things that its scenes have in common.
    """

    def __init__(self, rng):
        self.textures = Textures(rng)
        self.things = Things(self.textures, rng)

    def surroundings(self, person, camera_place, rng):
        """Return random `Surroundings` of a person whom a camera at a place (3,) sees."""
        ground = float(person.now[:, 2].min())
        if rng.random() < _JUMP:
            ground -= rng.uniform(0, _HIGH)
        return draw_surroundings(self.textures, person.joints[0, :2], min(ground, camera_place[2] - _NEAREST), rng)

    def scene(self, camera, person, other, surroundings, cover, rng):
        """Return a random `Scene`.

        Args:
            other: a second `Person` for somewhere beside the first, or None.
            cover: whether a thing may be before the person.
        """
        place, ground = person.joints[0, :2], surroundings.ground
        people = [person]
        if other is not None:
            where = np.r_[place + _step(_APART, rng), ground]
            move = (where - np.r_[other.now[:, :2].mean(0), other.now[:, 2].min()]).astype(np.float32)
            other = other._replace(now=other.now + move, later=other.later + move)
            if _in_view(camera, other.now) and camera.see(other.later)[:, 2].min() > _NEAREST:
                people.append(other)
        away = _AWAY[0], max(surroundings.room, _AWAY[1])
        things = [self.things.put([*place + _step(away, rng), ground], rng) for _ in range(rng.integers(*_AROUND))]
        if cover and rng.random() < _BEFORE:
            joint = person.joints[rng.integers(len(person.joints))]
            where = camera.place + rng.uniform(*_LINE) * (joint - camera.place)
            standing = rng.random() < _STANDING
            things.append(self.things.put([*where[:2], ground] if standing else where, rng, standing))
        things = [thing for thing in things if _in_view(camera, thing.vertices)]
        return Scene(camera, people, join(things) if things else None, surroundings, Light.draw(rng))

    def see(self, scene):
        """Return the surroundings alone, as the camera sees them: image (H, W, 3), 0 to 1, and depth (H, W) m."""
        camera = scene.camera
        rays = np.tensordot(camera.rotation.T.astype(np.float32), camera.rays, 1)
        return see(scene.surroundings, self.textures, camera.place, rays, camera.focal)


def _step(away, rng):
    """Return a random step (2,) m on the ground, its length between two."""
    angle = rng.uniform(0, 2 * np.pi)
    return rng.uniform(*away) * np.array([np.cos(angle), np.sin(angle)])


def _in_view(camera, vertices):
    """Return whether the box around vertices (n, 3) in the image is partly inside, and none of them is too near."""
    seen = camera.see(vertices)
    if seen[:, 2].min() <= _NEAREST:
        return False
    places = camera.project(seen)
    return bool((places.max(0) > 0).all() and (places.min(0) < camera.size).all())
