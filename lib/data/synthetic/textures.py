"""Textures of surfaces, from formulas: materials of floors and walls, plants, clouds, clutter.

Natural images have spectra that fall as a power of the frequency, and edges of things that hide each other (the "dead
leaves" of Matheron and of Lee, Mumford and Huang, 2001): both are drawn here.
"""

import colorsys

import cv2
import numpy as np

SIDE = 256  # texels
_TINTS = 60  # colours of a texture of many things
_LEVELS = 8  # of a pyramid: sides of 256 to 2 texels


class Textures:
    """Textures of all kinds, each with smaller and smaller copies for surfaces that are far away.

    Args:
        rng: NumPy generator.
        each: textures of a kind.
    """

    def __init__(self, rng, each=6):
        self.of_kind = {kind: range(n * each, (n + 1) * each) for n, kind in enumerate(KINDS)}
        self._texels = np.concatenate([_pyramid(draw(rng)) for draw in KINDS.values() for _ in range(each)])
        sides = SIDE >> np.arange(_LEVELS)
        self._start = np.cumsum([0, *np.square(sides)])

    def choose(self, kinds, rng):
        """Return the number of a random texture of one of some kinds."""
        numbers = self.of_kind[kinds[rng.integers(len(kinds))]]
        return numbers[rng.integers(len(numbers))]

    def __call__(self, number, u, v, texels):
        """Return colours (n, 3) float32, 0 to 1, of texture `number` at places u, v (n,), which repeat after 1.

        texels: (n,), how many of them a pixel covers, along one side.
        """
        level = np.clip(np.log2(np.maximum(texels, 1)), 0, _LEVELS - 1).astype(np.int32)
        column, row = ((np.floor(place * np.float32(SIDE)).astype(np.int32) & (SIDE - 1)) >> level for place in (u, v))
        first = (self._start[:-1] + number * self._start[-1]).astype(np.int32)
        texels = np.take(self._texels, first[level] + row * (SIDE >> level) + column, axis=0)
        return texels * np.float32(1 / 255)


def _pyramid(texture):
    """Return texels (n, 3) uint8 of all levels of a texture (SIDE, SIDE, 3), 0 to 1."""
    levels = [np.clip(texture * 255, 0, 255).astype(np.float32)]
    while len(levels) < _LEVELS:
        levels.append(cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    return np.concatenate([level.reshape(-1, 3) for level in levels]).astype(np.uint8)


def colour(rng, saturation=(0.05, 0.5), value=(0.25, 0.9), hue=(0.0, 1.0)):
    """Return a random colour (3,), 0 to 1."""
    return np.array(colorsys.hsv_to_rgb(*(rng.uniform(*limits) for limits in (hue, saturation, value))), np.float32)


def muted(rng, value=(0.25, 0.9)):
    """Return a random colour (3,) as of buildings: most are almost grey, and rather warm than cold."""
    hue = (0.04, 0.16) if rng.random() < 0.65 else (0.0, 1.0)
    return colour(rng, (0.0, rng.choice([0.1, 0.25, 0.5])), value, hue)


def _spectral(rng, power, channels=1, stretch=1.0):
    """Return noise (SIDE, SIDE, channels) of mean 0 and std 1 whose amplitude falls as frequency ** -power.

    stretch: how many times longer its structures are along x.
    """
    y, x = np.meshgrid(np.fft.fftfreq(SIDE), np.fft.rfftfreq(SIDE), indexing="ij")
    amplitude = np.hypot(y, x * stretch)
    amplitude[0, 0] = np.inf
    white = np.fft.rfft2(rng.standard_normal((SIDE, SIDE, channels), np.float32), axes=(0, 1))
    noise = np.fft.irfft2(white * (amplitude**-power)[..., None], axes=(0, 1), s=(SIDE, SIDE))
    return (noise / noise.std()).astype(np.float32)


def _plaster(rng):
    return muted(rng, (0.5, 0.95)) * (1 + rng.uniform(0.02, 0.1) * _spectral(rng, rng.uniform(0.8, 1.8)))


def _carpet(rng):
    fine, coarse = _spectral(rng, 0.3), _spectral(rng, 1.5)
    return muted(rng, (0.2, 0.7)) * (1 + 0.12 * fine + 0.1 * coarse)


def _asphalt(rng):
    return colour(rng, (0.0, 0.1), (0.25, 0.55)) * (1 + 0.15 * _spectral(rng, 0.3) + 0.1 * _spectral(rng, 1.6))


def _grass(rng):
    base = colour(rng, (0.3, 0.65), (0.3, 0.6), (0.15, 0.33))
    return base * (1 + 0.2 * _spectral(rng, 0.5) + 0.05 * _spectral(rng, 0.5, 3) + 0.15 * _spectral(rng, 1.5))


def _sand(rng):
    base = colour(rng, (0.15, 0.5), (0.5, 0.9), (0.05, 0.13))
    return base * (1 + 0.06 * _spectral(rng, 0.4) + 0.08 * _spectral(rng, 1.4, stretch=0.4))


def _clouds(rng):
    cover = np.clip(0.5 + rng.uniform(0.3, 0.8) * _spectral(rng, rng.uniform(1.4, 1.9)) + rng.uniform(-0.6, 0.6), 0, 1)
    blue = colour(rng, (0.2, 0.65), (0.6, 0.95), (0.54, 0.62))
    return blue * (1 - cover) + rng.uniform(0.7, 1.0) * cover


def _cells(rng, rows, columns, shift, joint, variation):
    """Return brightness (SIDE, SIDE, 1) of each cell of a brick-like grid, and whether a texel is of a joint."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    row = np.floor(y * rows).astype(int)
    column_place = x * columns + shift * (row % 2)
    column = np.floor(column_place).astype(int) % columns
    shade = 1 + variation * rng.standard_normal((rows, columns)).clip(-2, 2)
    edges = (y * rows % 1 < joint) | (column_place % 1 < joint * columns / rows)
    return shade[row, column][..., None].astype(np.float32), edges[..., None]


def _tiles(rng):
    rows = int(rng.choice([2, 4, 8]))
    shade, edges = _cells(rng, rows, rows, 0.0, rng.uniform(0.02, 0.06), rng.uniform(0.02, 0.12))
    first, second = muted(rng, (0.4, 0.95)), muted(rng, (0.2, 0.9))
    y, x = np.mgrid[:SIDE, :SIDE] * rows // SIDE
    chequered = ((x + y) % 2 == 0)[..., None] & (rng.random() < 0.35)
    face = np.where(chequered, second, first) * shade * (1 + 0.04 * _spectral(rng, 1.2))
    return np.where(edges, first.mean() * rng.uniform(0.5, 1.1), face)


def _bricks(rng):
    rows = int(rng.choice([8, 16]))
    shade, edges = _cells(rng, rows, rows // 2, 0.5, rng.uniform(0.08, 0.15), rng.uniform(0.08, 0.2))
    base = colour(rng, (0.25, 0.65), (0.35, 0.7), (0.0, 0.08)) if rng.random() < 0.7 else colour(rng, (0.0, 0.15))
    return np.where(edges, rng.uniform(0.45, 0.8), base * shade * (1 + 0.1 * _spectral(rng, 0.8)))


def _planks(rng):
    rows = int(rng.choice([4, 8, 16]))
    shade, edges = _cells(rng, rows, 2, 0.5, 0.04, rng.uniform(0.05, 0.15))
    base = colour(rng, (0.25, 0.65), (0.3, 0.8), (0.05, 0.11))
    return base * shade * (1 + 0.1 * _spectral(rng, 1.0, stretch=12.0)) * np.where(edges, 0.6, 1.0)


def _stripes(rng):
    x = np.arange(SIDE) / SIDE
    wave = np.sin(2 * np.pi * int(rng.integers(2, 12)) * x + rng.uniform(0, 6))
    share = (0.5 + 0.5 * wave if rng.random() < 0.4 else (wave > rng.uniform(-0.7, 0.7)) * 1.0)[None, :, None]
    return (1 - share) * muted(rng) + share * muted(rng) + 0.02 * _spectral(rng, 1.0)


def _windows(rng):
    """Return a part of a façade."""
    image = np.array(_bricks(rng) if rng.random() < 0.4 else _plaster(rng), np.float32)
    count = int(rng.choice([2, 3, 4]))
    step = SIDE // count
    wide, high = int(step * rng.uniform(0.3, 0.75)), int(step * rng.uniform(0.4, 0.8))
    frame, dark = muted(rng, (0.3, 1.0)), colour(rng, (0.1, 0.4), (0.1, 0.5), (0.5, 0.65))
    for row in range(count):
        for column in range(count):
            y, x = row * step + (step - high) // 2, column * step + (step - wide) // 2
            image[y : y + high, x : x + wide] = frame
            pane = image[y + 3 : y + high - 3, x + 3 : x + wide - 3]
            pane[:] = dark * rng.uniform(0.5, 1.6) + np.linspace(0.15, 0, len(pane))[:, None, None]
            pane[:, pane.shape[1] // 2 - 1 : pane.shape[1] // 2 + 1] = frame
    return image


def _shelves(rng):
    """Return rows of narrow things beside each other, such as books."""
    image = np.empty((SIDE, SIDE, 3), np.float32)
    wood, rows = colour(rng, (0.1, 0.6), (0.2, 0.8), (0.05, 0.12)), int(rng.choice([3, 4, 5]))
    image[:] = wood * rng.uniform(0.3, 0.6)
    for bottom in np.linspace(0, SIDE, rows + 1).astype(int)[1:]:
        x = 0
        while x < SIDE:
            wide, high = rng.integers(4, 24), int(SIDE / rows * rng.uniform(0.5, 0.9))
            if rng.random() < 0.85:
                image[bottom - high : bottom, x : x + wide] = colour(rng, (0.0, 0.8), (0.1, 0.95))
            x += wide + 1
        image[bottom - 6 : bottom] = wood
    return image


def _leaves(rng):
    """Return leaves, or a meadow, or a hedge: many small ellipses of similar colours that hide each other."""
    hue = rng.uniform(0.05, 0.4)
    tints = [colour(rng, (0.2, 0.8), (0.1, 0.65), (hue - 0.04, hue + 0.04)) for _ in range(_TINTS)]
    return _dead_leaves(rng, tints, np.ones(1200), (5, 20))


def _clutter(rng):
    """Return things of any colour and size that hide each other, as a crowd or a market seen from afar."""
    vivid = rng.uniform(0.1, 0.8)
    tints = [colour(rng, (0.0, vivid), (0.05, 0.95)) for _ in range(_TINTS)]
    return _dead_leaves(rng, tints, rng.random(600), (6, 90))


def _dead_leaves(rng, tints, roundness, radii):
    """Return ellipses and, where roundness (n,) is below 0.5, boxes that hide each other.

    radii: (lowest, highest) in texels, with a density that falls with the third power.
    """
    image = np.full((SIDE, SIDE, 3), 0.4, np.float32)
    count, (low, high) = len(roundness), (radius**-2.0 for radius in radii)
    radius = (low - rng.random(count) * (low - high)) ** -0.5
    centre, sides = rng.uniform(0, SIDE, (count, 2)), 2 * radius[:, None] * rng.uniform(0.4, 1, (count, 2))
    tint = np.array(tints, float)[rng.integers(len(tints), size=count)]
    for number, angle in enumerate(rng.uniform(0, 180, count)):
        box = centre[number].tolist(), sides[number].tolist(), angle
        if roundness[number] > 0.5:
            cv2.ellipse(image, box, tint[number].tolist(), -1)
        else:
            cv2.fillPoly(image, [cv2.boxPoints(box).astype(np.int32)], tint[number].tolist())
    return image + 0.03 * _spectral(rng, 1.0)


def _blurred(rng):
    """Return coloured shapes out of focus."""
    soft = cv2.GaussianBlur(_clutter(rng).astype(np.float32), (0, 0), rng.uniform(4, 16), borderType=cv2.BORDER_REFLECT)
    return soft + 0.06 * _spectral(rng, 1.8, 3)


KINDS = {  # functions: NumPy generator -> (SIDE, SIDE, 3), about 0 to 1
    "plaster": _plaster, "carpet": _carpet, "asphalt": _asphalt, "grass": _grass, "sand": _sand, "clouds": _clouds,
    "tiles": _tiles, "bricks": _bricks, "planks": _planks, "stripes": _stripes, "windows": _windows,
    "shelves": _shelves, "leaves": _leaves, "clutter": _clutter, "blurred": _blurred,
}  # fmt: skip
