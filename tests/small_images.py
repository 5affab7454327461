"""Small sets of images in the layouts of COCO and of Human3.6M's frames: drawn people whose joints are spots."""

import json
import pickle

import cv2
import numpy as np

from lib.body.camera import project
from lib.data.datasets.coco import NAMES

SIZE = (320, 240)
# COCO's 17 keypoints of a standing person, in units of their height, x to the right and y down from the head.
STANDING = np.array([
    (0, 0.08), (0.02, 0.06), (-0.02, 0.06), (0.04, 0.07), (-0.04, 0.07), (0.11, 0.2), (-0.11, 0.2), (0.16, 0.34),
    (-0.16, 0.34), (0.18, 0.47), (-0.18, 0.47), (0.07, 0.5), (-0.07, 0.5), (0.08, 0.72), (-0.08, 0.72), (0.08, 0.94),
    (-0.08, 0.94),
])  # fmt: skip
COLOURS = cv2.applyColorMap(np.linspace(0, 255, 17).astype(np.uint8)[:, None], cv2.COLORMAP_HSV)[:, 0]
CAMERA = {"f": np.array([[1145.0], [1143.8]]), "c": np.array([[512.5], [515.4]]), "R": np.eye(3), "name": "camera1"}


def draw(people, size, rng, radius=3):
    """An image (H, W, 3), BGR, of smooth noise with people (n, 17, 2): a spot at each joint, to a 16th of a pixel."""
    noise = rng.integers(60, 120, (6, 8, 3), np.uint8)
    image = cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)
    for joints in people:
        for place, colour in zip(np.round(joints * 16).astype(int).tolist(), COLOURS.tolist()):
            cv2.circle(image, place, radius * 16, colour, -1, cv2.LINE_AA, 4)
    return image


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 95])


def make_coco(folder, train=12, test=5, seed=0):
    """Write a set in COCO's layout; every third image has two people, and each has someone without keypoints."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", test)):
        images, annotations = [], []
        for number in range(1, count + 1):
            name, crowd = f"{number:012d}.jpg", 1 + (number % 3 == 0)
            people = [
                STANDING * (height := rng.uniform(90, 140)) + (rng.uniform(60, 260), rng.uniform(10, 90 - height / 2))
                for _ in range(crowd)
            ]
            people = [np.round(joints) for joints in people]
            save(draw(people, SIZE, rng), folder / f"{split}2017" / name)
            images.append({"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1], "license": 1})
            for joints in people:
                annotations.append(_annotation(len(annotations) + 1, number, joints, rng))
            empty = {"id": 10_000 + number, "image_id": number, "category_id": 1, "iscrowd": number % 2, "area": 99.5}
            annotations.append(empty | {"bbox": [5, 5, 9, 11], "num_keypoints": 0, "keypoints": [0] * 51})
        category = {"id": 1, "name": "person", "supercategory": "person", "keypoints": NAMES, "skeleton": [[16, 14]]}
        content = {"info": {"year": 2017}, "licenses": [], "images": images, "annotations": annotations}
        path = folder / "annotations" / f"person_keypoints_{split}2017.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content | {"categories": [category]}))
    return folder


def _annotation(number, image, joints, rng):
    seen = rng.choice([1, 2, 2, 2], len(joints))
    seen[rng.integers(0, 17, 2)] = 0
    low, high = np.clip(joints.min(0) - 8, 0, SIZE), np.clip(joints.max(0) + 8, 0, SIZE)
    keypoints = np.where(seen[:, None] > 0, np.column_stack([joints, seen]), 0).astype(int)
    return {
        "id": number, "image_id": image, "category_id": 1, "iscrowd": 0, "num_keypoints": int((seen > 0).sum()),
        "keypoints": keypoints.ravel().tolist(), "bbox": [*low, *(high - low)], "segmentation": [[0, 0, 1, 0, 1, 1]],
        "area": 0.53 * float(np.prod(high - low)),
    }  # fmt: skip


def make_h36m(folder, poses, seed=0):
    """Write a set in the layout of Human3.6M's frames, of poses (n, 17, 3), m; the first two thirds are to train on.

    Returns:
        {split: (n, 17, 3) joints in the axes of the camera}.
    """
    rng = np.random.default_rng(seed)
    annotations = folder / "annotation_body3d" / "fps50"
    annotations.mkdir(parents=True)
    cameras = {(f"S{subject}", "54138969"): CAMERA for subject in range(1, 12)}
    (folder / "annotation_body3d" / "cameras.pkl").write_bytes(pickle.dumps(cameras))
    placed = poses + rng.uniform((-0.9, -0.5, 4), (0.9, 0.5, 6), (len(poses), 3))[:, None]
    count, found = 2 * len(poses) // 3, {}
    for split, subject, joints in (("train", "S1", placed[:count]), ("test", "S9", placed[count:])):
        part = project(joints, CAMERA["f"][:, 0], CAMERA["c"][:, 0])
        video = f"{subject}_Directions_1.54138969"
        names = [f"{subject}/{video}/{video}_{number + 1:06d}.jpg" for number in range(len(joints))]
        for name, places in zip(names, part):
            save(draw([places], (1000, 1002), rng, 14), folder / "images" / name)
        ones = np.ones((len(joints), 17, 1))
        np.savez(
            annotations / f"h36m_{split}.npz", imgname=np.array(names), center=part.mean(1), scale=np.ones(len(joints)),
            part=np.concatenate([part, ones], 2), S=np.concatenate([joints, ones], 2),
        )  # fmt: skip
        found[split] = joints
    return found
