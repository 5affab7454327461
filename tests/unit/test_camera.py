"""Camera geometry: arrays and tensors agree, and rotations are those of an independent implementation."""

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from lib.body.camera import NEAREST, orbit_rotation, project, rotate


def test_an_orbiting_camera_looks_at_the_centre_and_is_level():
    yaw, elevation = np.radians([0.0, 45, 200]), np.radians([0.0, 30, -20])
    rotation = orbit_rotation(yaw, elevation)
    eye = np.stack([np.cos(elevation) * np.cos(yaw), np.cos(elevation) * np.sin(yaw), np.sin(elevation)], axis=-1)
    np.testing.assert_allclose(
        (rotation @ -eye[..., None])[..., 0], [[0, 0, 1]] * 3, atol=1e-12
    )  # the centre is in front
    np.testing.assert_allclose(rotation[:, 0, 2], 0, atol=1e-12)  # right is level
    assert (rotation[:, 1, 2] < 0).all()  # world up is image up
    np.testing.assert_allclose(np.linalg.det(rotation), 1)
    tensors = orbit_rotation(torch.tensor(yaw), torch.tensor(elevation))
    np.testing.assert_allclose(tensors.numpy(), rotation, atol=1e-12)


def test_rotate_follows_the_right_hand():
    rng = np.random.default_rng(0)
    axis = rng.standard_normal((5, 3))
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    angle, vectors = rng.uniform(-3, 3, (5, 1)), rng.standard_normal((5, 3))
    expected = Rotation.from_rotvec(axis * angle).apply(vectors)
    np.testing.assert_allclose(rotate(*map(torch.tensor, (vectors, axis, angle))).numpy(), expected, atol=1e-12)


def test_projection_of_arrays_and_tensors_and_behind_the_camera():
    points = np.array([[1.0, -2, 4], [1, 1, -3]])
    np.testing.assert_allclose(
        project(points, 100, np.array([320, 240])), [[345, 190], [320 + 100 / NEAREST, 240 + 100 / NEAREST]]
    )
    np.testing.assert_allclose(project(torch.tensor(points), 100.0).numpy(), project(points, 100.0))
