"""Crops of rendered people with exact labels: image, depth, flow, segmentation, keypoints and poses."""

import numpy as np
import torch

from lib.body.layouts import LAYOUTS
from lib.body.skeleton import JOINTS, limb_vectors, root_relative
from lib.data.synthetic.appearance import outfit
from lib.data.synthetic.body import COEFFICIENTS, SOMEONE, Body
from lib.data.synthetic.cameras import draw_cameras
from lib.data.synthetic.crop_cameras import draw_crop
from lib.data.synthetic.draws import seeded
from lib.data.synthetic.imaging import photograph
from lib.data.synthetic.measure import Measurer
from lib.data.synthetic.pose_pairs import FPS
from lib.data.synthetic.random_views import STANDARD_SIZE
from lib.data.synthetic.scenes import Person, SceneMaker
from lib.data.synthetic.visibility import HIDDEN, OUTSIDE, SEEN, Visibility

BLOCK = 16  # crops of one person, which are drawn together

_CELL = 4.0  # m: side of the cells of the body's mesh, times the image's height in px: some pixel
_COMPANY = 0.3  # share of crops with a second person
_TRIES = 6  # of a crop that shows too little of the person
_VISIBLE, _PIXELS = 5, 0.02  # COCO's keypoints and the share of the image that a crop shows of the person, at least
_COCO = LAYOUTS["coco17"]
_WRITTEN = np.zeros(3, np.float32)  # as COCO writes visibility
_WRITTEN[[SEEN, HIDDEN, OUTSIDE]] = 2, 1, 0

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


class Crops:
    """Renderer of the crops of one split.

    Args:
        pairs: `PosePairs`.
        size: (width, height) px.
        seed: tuple of int; different ones give different people and places.
    """

    def __init__(self, pairs, size, seed):
        self.pairs, self.size, self.seed = pairs, tuple(size), tuple(seed)
        self.body = Body(cell=_CELL / self.size[1])
        self.measure = Measurer(self.body)
        self._make = SceneMaker(np.random.default_rng((*self.seed, 0)))
        self._layouts = {"coco": Visibility(_COCO), "h36m": Visibility(JOINTS)}

    def draw(self, block):
        """Return {key: (BLOCK, ...)} as `SHAPES` says, of one person in many poses and places."""
        crops = [self._labelled(scene, measured, rng) | source for scene, measured, source, rng in self.scenes(block)]
        return {key: np.stack([crop[key] for crop in crops]).astype(dtype) for key, (dtype, _) in SHAPES.items()}

    def scenes(self, block):
        """Yield BLOCK `Scene`s of one person, each with what is `Measured`, its source and a generator to go on with.

        The source is {"person": number, "clip": number of that of the motion}.
        """
        rng = np.random.default_rng((*self.seed, 1, block))
        company = np.flatnonzero(rng.random(BLOCK) < _COMPANY)
        pairs, clips = self.pairs.draw(BLOCK + len(company), rng)
        people = self._dressed(pairs[:BLOCK], rng)
        others = dict(zip(company, self._dressed(pairs[BLOCK:], rng))) if len(company) else {}
        with seeded(rng):
            roots = torch.from_numpy(np.stack([person.joints for person in people]))
            rotations, offsets = (value.double().numpy() for value in draw_cameras(roots[:, None])[:2])
        for crop, person in enumerate(people):
            scene, measured = self._scene(person, others.get(crop), rotations[crop], offsets[crop], rng)
            yield scene, measured, {"person": block, "clip": clips[crop]}, rng

    def see(self, scene):
        """Return the surroundings of a `Scene` alone, an image (H, W, 3), and their depth (H, W) m."""
        return self._make.see(scene)

    def _dressed(self, pairs, rng):
        """Return n `Person`s, who are one person in the poses of pairs (n, 2, 17, 3)."""
        clothes = outfit(self.body, rng)
        posed = self.body.pose(
            rng.standard_normal(COEFFICIENTS), pairs.reshape(-1, *pairs.shape[2:]), clothes.thickness
        )
        now, later = slice(None, None, 2), slice(1, None, 2)
        of_pairs = posed.vertices[now], posed.vertices[later], posed.normals[now], posed.joints[now], posed.points[now]
        return [
            Person(vertices, moved, normals, clothes.colours, joints, points)
            for vertices, moved, normals, joints, points in zip(*of_pairs)
        ]

    def _scene(self, person, other, rotation, offset, rng):
        """Return a `Scene` that shows enough of the person, and the `Measured` of it.

        rotation, offset: of a camera that sees the person; it is turned and zoomed.
        """
        surroundings = self._make.surroundings(person, -offset @ rotation, rng)
        for attempt in range(_TRIES):
            last = attempt == _TRIES - 1
            places = np.concatenate([person.joints, person.points])
            camera = draw_crop(places, rotation, offset, self.size, rng, 1 / FPS)
            scene = self._make.scene(camera, person, None if last else other, surroundings, not last, rng)
            measured = self.measure(scene)
            if self._shows(scene, measured):
                break
        return scene, measured

    def _shows(self, scene, measured):
        """Return whether a scene shows enough of the person, and no other person larger."""
        share, other = (measured.segments < SOMEONE).mean(), (measured.segments == SOMEONE).mean()
        seen = self._keypoints(scene, measured, "coco")[:, 2] == _WRITTEN[SEEN]
        return seen.sum() >= _VISIBLE and share > max(_PIXELS, other)

    def _labelled(self, scene, measured, rng):
        """Return {key: array} of a crop, all but its source."""
        camera = scene.camera
        behind, far = self.see(scene)
        depth, flow = measured.complete(camera, far)
        joints = camera.see(scene.people[0].joints)
        size = float(np.linalg.norm(limb_vectors(joints), axis=-1).sum())
        image = photograph(scene, self.body.faces, behind, far, float(np.hypot(*flow).max()), rng)
        return {
            "image": image.transpose(2, 0, 1),
            "depth": depth[None],
            "flow": flow,
            "segments": measured.segments,
            **{key: self._keypoints(scene, measured, key) for key in self._layouts},
            "pose": root_relative(joints) * np.float32(STANDARD_SIZE / size),
            "root": joints[0],
            "body_size": size,
            "focal": camera.focal,
        }

    def _keypoints(self, scene, measured, key):
        """Return keypoints (17, 3): x, y in px and visibility, as COCO writes it."""
        camera, person = scene.camera, scene.people[0]
        places = camera.see(person.joints if key == "h36m" else person.points[: len(_COCO)])
        keypoints = camera.project(places)
        shown = self._layouts[key](measured.segments, measured.depth, places, keypoints)
        return np.concatenate([keypoints, _WRITTEN[shown, None]], axis=1)
