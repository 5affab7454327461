"""Clothes, skin and hair of a rendered body, as colours of its vertices."""

import colorsys
from typing import NamedTuple

import numpy as np

from lib.data.synthetic.body import SEGMENTS

_SKIN = np.array([[0.96, 0.80, 0.69], [0.87, 0.67, 0.53], [0.70, 0.50, 0.36], [0.47, 0.32, 0.23], [0.29, 0.20, 0.15]])
_HAIR = np.array([[0.08, 0.07, 0.06], [0.25, 0.16, 0.10], [0.45, 0.30, 0.17], [0.75, 0.60, 0.38], [0.62, 0.60, 0.58]])
_LIPS = np.array([0.65, 0.30, 0.30])
_PATTERNED = 0.4  # share of shirts with stripes or spots
_GREY = 0.3  # share of clothes without colour

# Positions on the mean body at rest, m (z up, facing -y).
_HAIRLINE, _HAIR_BEHIND = 0.885, 0.78
_EYES, _EYE = np.array([[0.031, -0.142, 0.853], [-0.031, -0.142, 0.853]]), 0.014
_BROWS_UP, _BROW = 0.022, (0.018, 0.006)
_MOUTH, _MOUTH_SIZE = np.array([0, -0.145, 0.780]), (0.024, 0.008)
_WAIST = 0.20
_SLEEVES = (0.50, 0.42, 0.28)  # heights at which sleeves may end
_LEGS = (-0.20, -0.40, -0.72)  # heights at which trousers may end
_FRONT = -0.09  # of the face

_LOOSE = {"shirt": 0.022, "trousers": 0.025, "hair": 0.035, "shoes": 0.008}  # m, thickness at most
_TIGHT = 0.003  # m, thickness at least
_FLARE = (-0.5, 1.5)  # of trousers: how much thicker they are at the ground than at the waist, as a factor


class Outfit(NamedTuple):
    """Outfit of a body of V vertices."""

    colours: np.ndarray  # (V, 3) float32, 0 to 1
    thickness: np.ndarray  # (V,) float32, m, above the skin


def dress(body, rng):
    """Return colours (V, 3), 0 to 1, of a `Body` in random clothes; rng: a NumPy generator."""
    return _dress(body, rng)[0]


def outfit(body, rng):
    """Return a random `Outfit` of a `Body`, tight or loose; rng: a NumPy generator."""
    colours, worn = _dress(body, rng)
    thickness = np.zeros(len(colours), np.float32)
    z = body.upright[:, 2]
    for name, mask in worn.items():
        thickness[mask] = rng.uniform(_TIGHT, _LOOSE[name])
        if name == "trousers":
            down = (_WAIST - z[mask]) / (_WAIST - z.min())
            thickness[mask] *= 1 + rng.uniform(*_FLARE) * np.clip(down, 0, 1)
    return Outfit(colours.astype(np.float32), thickness)


def _dress(body, rng):
    """Return colours (V, 3) and {what is worn: (V,) bool}."""
    x, y, z = body.upright.T
    part = {name: body.segment == number for number, name in enumerate(SEGMENTS)}

    def of(*ends):
        return np.logical_or.reduce([mask for name, mask in part.items() if name.endswith(ends)])

    skin = _SKIN[rng.integers(len(_SKIN))] * rng.uniform(0.9, 1.05)
    colours = np.tile(skin, (len(z), 1))
    shirt = of("chest", "waist", "arm", "forearm") & (~of("arm") | (z > rng.choice(_SLEEVES)))
    trousers = (of("pelvis", "thigh", "shin") & (z > rng.choice(_LEGS))) | (of("waist") & (z < _WAIST))
    colours[shirt] = _patterned(body.upright[shirt], rng)
    colours[trousers] = _cloth(rng)
    colours[of("foot")] = _cloth(rng) * 0.7
    head = part["head"]
    hair = head & ((z > _HAIRLINE) | ((y > -0.06) & (z > _HAIR_BEHIND - rng.uniform(0, 0.08))))
    colours[hair] = _HAIR[rng.integers(len(_HAIR))] * rng.uniform(0.8, 1.2)
    face = head & (y < _FRONT)
    for eye in _EYES:
        off = np.abs(body.upright - eye)
        colours[face & (off[:, 0] < _EYE) & (off[:, 2] < _EYE * 0.5)] = 0.15
        brow = np.abs(body.upright - eye - [0, 0, _BROWS_UP])
        colours[face & (brow[:, 0] < _BROW[0]) & (brow[:, 2] < _BROW[1])] = skin * 0.4
    off = np.abs(body.upright - _MOUTH)
    colours[face & (off[:, 0] < _MOUTH_SIZE[0]) & (off[:, 2] < _MOUTH_SIZE[1])] = _LIPS * skin.mean() / 0.6
    return np.clip(colours, 0, 1), {"shirt": shirt, "trousers": trousers, "hair": hair, "shoes": of("foot")}


def _cloth(rng):
    hue, value = rng.random(), rng.uniform(0.12, 0.95)
    saturation = 0.0 if rng.random() < _GREY else rng.uniform(0.1, 0.8)
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value))


def _patterned(places, rng):
    """Return colours of cloth at places (n, 3): plain, striped or spotted."""
    first, second = _cloth(rng), _cloth(rng)
    if rng.random() >= _PATTERNED:
        return np.tile(first, (len(places), 1))
    waves = np.sin(places @ (rng.standard_normal((3, rng.integers(1, 4))) * rng.uniform(20, 60)))
    return np.where(waves.prod(axis=1, keepdims=True) > 0, first, second)
