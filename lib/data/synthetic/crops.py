"""Crops of rendered people with exact labels: image, depth, flow, segmentation, keypoints and poses."""

from typing import NamedTuple

import cv2
import numpy as np
import torch

from lib.body.layouts import LAYOUTS
from lib.body.skeleton import JOINTS, limb_vectors, root_relative
from lib.data.synthetic.appearance import outfit
from lib.data.synthetic.body import COEFFICIENTS, NOTHING, SOMEONE, THING, Body
from lib.data.synthetic.cameras import draw_cameras
from lib.data.synthetic.coarse import cut_apart
from lib.data.synthetic.crop_cameras import draw_crop
from lib.data.synthetic.draws import seeded
from lib.data.synthetic.furniture import Mesh, Things, join
from lib.data.synthetic.imaging import Drawn, Light, cast_shadow, photograph
from lib.data.synthetic.pose_pairs import FPS
from lib.data.synthetic.random_views import STANDARD_SIZE
from lib.data.synthetic.render import FARTHEST, rasterise
from lib.data.synthetic.surroundings import draw_surroundings, see, soften
from lib.data.synthetic.textures import Textures
from lib.data.synthetic.visibility import HIDDEN, OUTSIDE, SEEN, Visibility

BLOCK = 16  # crops of one person, which are drawn together

_CELL = 0.02  # m, of the body's mesh
_TRIES = 6  # of a crop that shows too little of the person
_VISIBLE, _PIXELS = 5, 0.02  # COCO's keypoints and the share of the image that a crop shows at least of the person
_COMPANY = 0.3  # share of crops with a second person
_APART = (0.35, 1.4)  # m, from one to the other
_NEAREST = 0.3  # m, from the camera to a thing or a second person
_BEFORE, _AROUND = (
    0.25,
    (0, 4),
)  # share of crops with a thing before the person; number of things around, from and below
_LINE = (0.4, 0.85)  # where on the line from the camera to a joint such a thing is
_STANDING = 0.6  # share of those that stand on the ground
_JUMP = 0.1  # share of people who are above the ground
_COCO = LAYOUTS["coco17"]
_LABEL = np.array([2, 1, 0], np.float32)  # of SEEN, HIDDEN, OUTSIDE, as COCO writes them
assert (SEEN, HIDDEN, OUTSIDE) == (0, 1, 2)

SHAPES = {  # key: dtype and shape of a crop of H x W px
    "image": (np.uint8, (3, "H", "W")),
    "depth": (np.float16, (1, "H", "W")),
    "flow": (np.float16, (2, "H", "W")),
    "segments": (np.uint8, ("H", "W")),
    "coco": (np.float32, (17, 3)),
    "h36m": (np.float32, (17, 3)),
    "pose": (np.float32, (17, 3)),
    "root": (np.float32, (3,)),
    "body_size": (np.float32, ()),
    "focal": (np.float32, ()),
    "person": (np.int32, ()),
    "clip": (np.int32, ()),
}


class Person(NamedTuple):
    """Posed person, world axes, m, at one time and one frame later."""

    now: np.ndarray  # (V, 3)
    later: np.ndarray  # (V, 3)
    normals: np.ndarray  # (V, 3)
    colours: np.ndarray  # (V, 3)


class Scene(NamedTuple):
    """Content of a crop."""

    camera: object  # `CropCamera`
    people: list  # of `Person`s, the labelled one first
    things: Mesh | None
    light: Light
    ground: float  # m


class Crops:
    """Renderer of the crops of one split.

    Args:
        pairs: `PosePairs`.
        size: (width, height) px.
        seed: tuple of int; different ones give different people and places.
    """

    def __init__(self, pairs, size, seed):
        self.pairs, self.size, self.seed = pairs, tuple(size), tuple(seed)
        self.body = Body(cell=_CELL)
        self._copied, self._faces, self._labels = cut_apart(self.body.faces, self.body.segment)
        rng = np.random.default_rng((*self.seed, 0))
        self.textures = Textures(rng)
        self.things = Things(self.textures, rng)
        self._coco, self._h36m = Visibility(_COCO), Visibility(JOINTS)

    def draw(self, block):
        """Return {key: (BLOCK, ...)} as `SHAPES` says, of one person in many poses and places."""
        rng = np.random.default_rng((*self.seed, 1, block))
        company = np.flatnonzero(rng.random(BLOCK) < _COMPANY)
        pairs, clips = self.pairs.draw(BLOCK + len(company), rng)
        posed, look = self._dressed(pairs[:BLOCK], rng)
        others = dict.fromkeys(range(BLOCK))
        if len(company):
            second, second_look = self._dressed(pairs[BLOCK:], rng)
            others |= {crop: _person(second, n, second_look) for n, crop in enumerate(company)}
        rotation, offset = self._cameras(posed.joints[::2], rng)
        crops = []
        for crop in range(BLOCK):
            person = _person(posed, crop, look), posed.joints[2 * crop], posed.points[2 * crop]
            drawn = self._crop(*person, others[crop], rotation[crop], offset[crop], rng)
            crops.append(drawn | {"person": block, "clip": clips[crop]})
        return {key: np.stack([crop[key] for crop in crops]).astype(dtype) for key, (dtype, _) in SHAPES.items()}

    def _dressed(self, pairs, rng):
        """Return a random person as `Posed` in 2 n frames, of pairs (n, 2, 17, 3), and the colours of the clothes."""
        clothes = outfit(self.body, rng)
        shape = rng.standard_normal(COEFFICIENTS)
        return self.body.pose(shape, pairs.reshape(-1, *pairs.shape[2:]), clothes.thickness), clothes.colours

    def _cameras(self, joints, rng):
        """Return rotations (n, 3, 3) and offsets (n, 3) of cameras that see joints (n, 17, 3)."""
        with seeded(rng):
            rotation, offset, *_ = draw_cameras(torch.from_numpy(joints)[:, None])
        return rotation.double().numpy(), offset.double().numpy()

    def _crop(self, person, joints, points, other, rotation, offset, rng):
        """Return {key: a crop's array} of a person whom a camera sees, {"person", "clip"} left out."""
        ground = float(person.now[:, 2].min()) - (rng.uniform(0, 0.5) if rng.random() < _JUMP else 0.0)
        ground = min(ground, (-offset @ rotation)[2] - _NEAREST)
        surroundings = draw_surroundings(self.textures, joints[0, :2], ground, rng)
        for attempt in range(_TRIES):
            camera = draw_crop(np.concatenate([joints, points]), rotation, offset, self.size, rng, 1 / FPS)
            alone = attempt == _TRIES - 1
            scene = self._scene(camera, person, joints, None if alone else other, surroundings, not alone, rng)
            values, depth = self._measure(scene)
            labels = {"segments": np.rint(values[..., 2]).astype(np.uint8), "depth": depth[None]}
            labels |= self._keypoints(camera, joints, points, labels)
            if _shows(labels):
                break
        rays = camera.rays @ np.float32(camera.rotation)
        seen, far = see(surroundings, self.textures, camera.place, rays, camera.focal)
        np.copyto(depth, far, where=labels["segments"] == NOTHING)
        still = labels["segments"] >= THING
        flow = np.where(still[..., None], camera.motion_of_still(depth), values[..., :2]).transpose(2, 0, 1)
        return labels | {"flow": flow, "image": self._photograph(scene, np.hypot(*flow).max(), seen, far, rng)}

    def _scene(self, camera, person, joints, other, surroundings, cover, rng):
        """Return a random `Scene` around a person; cover: whether a thing may be before the person."""
        people, place, ground = [person], joints[0, :2], surroundings.ground
        if other is not None:
            where = np.r_[place + _around(_APART, rng), ground]
            move = np.float32(where - np.r_[other.now[:, :2].mean(0), other.now[:, 2].min()])
            other = other._replace(now=other.now + move, later=other.later + move)
            if min(camera.see(vertices)[:, 2].min() for vertices in (other.now, other.later)) > _NEAREST:
                people.append(other)
        things = [
            self.things.put([*place + _around((0.9, max(surroundings.room, 1.2)), rng), ground], rng)
            for _ in range(rng.integers(*_AROUND))
        ]
        if cover and rng.random() < _BEFORE:
            where = camera.place + rng.uniform(*_LINE) * (joints[rng.integers(len(joints))] - camera.place)
            standing = rng.random() < _STANDING
            things.append(self.things.put([*where[:2], ground] if standing else where, rng, standing))
        things = [thing for thing in things if camera.see(thing.vertices)[:, 2].min() > _NEAREST]
        return Scene(camera, people, join(things) if things else None, Light.draw(rng), ground)

    def _measure(self, scene):
        """Return motion in px and label (H, W, 3) of people and things in a scene, and the depth (H, W) m of them."""
        camera = scene.camera
        values = np.zeros((*camera.size[::-1], 3), np.float32)
        values[..., 2] = NOTHING
        depth = np.full(values.shape[:2], FARTHEST, np.float32)
        for number, person in enumerate(scene.people):
            corners = camera.see(person.now)
            content = np.empty((len(self._copied), 3), np.float32)
            moved = camera.project(camera.later(camera.see(person.later))) - camera.project(corners)
            content[:, :2] = np.take(moved, self._copied, axis=0)
            content[:, 2] = SOMEONE if number else self._labels
            corners = np.take(corners, self._copied, axis=0)
            values, depth = self._rasterise(camera, corners, self._faces, content, values, depth)
        if scene.things:
            corners = camera.see(scene.things.vertices)
            content = np.full_like(corners, THING)
            values, depth = self._rasterise(camera, corners, scene.things.faces, content, values, depth)
        return values, depth

    @staticmethod
    def _rasterise(camera, corners, faces, values, image, depth):
        shading, culling = cv2.RASTERIZE_SHADING_SHADED, cv2.RASTERIZE_CULLING_CW
        return rasterise(corners, faces, values, image, depth, camera.field, shading, culling)

    def _keypoints(self, camera, joints, points, labels):
        """Return the labels that follow from joints (17, 3) and points (23, 3)."""
        joints, points = camera.see(joints), camera.see(points[: len(_COCO)])
        size = float(np.linalg.norm(limb_vectors(joints), axis=-1).sum())
        found = {
            "pose": root_relative(joints) * np.float32(STANDARD_SIZE / size),
            "root": joints[0],
            "body_size": size,
            "focal": camera.focal,
        }
        for key, places, visibility in (("coco", points, self._coco), ("h36m", joints, self._h36m)):
            keypoints = camera.project(places)
            shown = visibility(labels["segments"], labels["depth"][0], places, keypoints)
            found[key] = np.c_[keypoints, _LABEL[shown]]
        return found

    def _photograph(self, scene, speed, seen, far, rng):
        """Return the image (3, H, W) uint8 that a camera records of a scene, before what is `seen` at a depth `far`."""
        camera, light = scene.camera, scene.light
        for person in scene.people:
            cast_shadow(seen, far, camera, person.now, light, scene.ground, rng)
        meshes = [self._drawn(camera, light, *person, self.body.faces) for person in scene.people]
        if scene.things:
            vertices, normals, faces, colours = scene.things
            meshes.append(self._drawn(camera, light, vertices, vertices, normals, colours, faces))
        return photograph(camera, meshes, soften(seen, rng), far, speed, rng).transpose(2, 0, 1)

    @staticmethod
    def _drawn(camera, light, now, later, normals, colours, faces):
        lit = np.clip(colours * light(normals), 0, 1)
        return Drawn(camera.see(now), camera.later(camera.see(later)), faces, lit)


def _person(posed, number, colours):
    now, later = 2 * number, 2 * number + 1
    return Person(posed.vertices[now], posed.vertices[later], posed.normals[now], colours)


def _around(away, rng):
    """Return a random step (2,) m on the ground, its length between two."""
    angle = rng.uniform(0, 2 * np.pi)
    return rng.uniform(*away) * np.array([np.cos(angle), np.sin(angle)])


def _shows(labels):
    """Return whether a crop shows enough of the person, and no other person larger."""
    of_person, of_other = ((labels["segments"] < SOMEONE).mean(), (labels["segments"] == SOMEONE).mean())
    return (labels["coco"][:, 2] == 2).sum() >= _VISIBLE and of_person > max(_PIXELS, of_other)
