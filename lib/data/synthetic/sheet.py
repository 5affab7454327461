"""Sheet of rendered crops beside their labels, to look at."""

import cv2
import numpy as np

from lib.body.skeleton import LEFT, LIMBS, RIGHT
from lib.data.datasets.rendered import KEYS, RenderedPeople
from lib.data.synthetic.body import SEGMENTS, SOMEONE
from lib.files import atomic_path
from lib.model.cues.colours import depth_colours, flow_colours

_ACROSS, _SHOWN = 3, 24  # crops beside each other, and in all
_TALL = 256  # px, of a crop on the sheet
_LEFT, _RIGHT, _MIDDLE = (230, 60, 60), (60, 110, 240), (250, 250, 250)
_SEEN, _HIDDEN = (60, 230, 60), (250, 160, 0)  # of COCO's keypoints
_GAP = 6  # px


def draw_sheet(path, target):
    """Write an image (PNG) of test crops of a set: image, skeleton and keypoints, depth, flow, parts.

    Depth: nearer is brighter. Flow: hue is the direction, saturation the length up to the crop's longest.

    Raises:
        UserError: the set is damaged, or the image cannot be written.
    """
    people = RenderedPeople(path, "test", (*KEYS, "segments"))
    chosen = np.linspace(0, len(people) - 1, min(_SHOWN, len(people))).astype(int)
    crops = people[chosen.tolist()]
    tiles = [_tile({key: values[number].numpy() for key, values in crops.items()}) for number in range(len(chosen))]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % _ACROSS)
    lines = [np.concatenate(tiles[first : first + _ACROSS], axis=1) for first in range(0, len(tiles), _ACROSS)]
    done, coded = cv2.imencode(".png", np.concatenate(lines)[..., ::-1])
    assert done
    with atomic_path(target) as temporary:
        temporary.write_bytes(coded.tobytes())


def _tile(crop):
    """Return an image (h, w, 3) uint8 of a crop and its labels."""
    image = crop["image"].transpose(1, 2, 0)
    times = _TALL / len(image)
    size = (round(image.shape[1] * times), _TALL)
    drawn = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
    parts = [drawn, _skeleton(drawn.copy(), crop, times)]
    near = 1 / crop["depth"][0]
    longest = max(np.hypot(*crop["flow"]).max(), 1e-6)
    shown = depth_colours(near, near.min(), near.max()), flow_colours(crop["flow"], longest)
    for colours in (*shown, _segments(crop["segments"])):
        parts.append(cv2.resize(colours, size, interpolation=cv2.INTER_NEAREST))
    return np.pad(np.concatenate(parts, axis=1), ((0, _GAP), (0, _GAP), (0, 0)))


def _skeleton(image, crop, times):
    def place(joint):
        return tuple(np.rint(joint[:2] * times * 8).astype(int).tolist())

    for a, b in LIMBS:
        colour = _LEFT if {a, b} & set(LEFT) else _RIGHT if {a, b} & set(RIGHT) else _MIDDLE
        cv2.line(image, place(crop["h36m"][a]), place(crop["h36m"][b]), colour, 1, cv2.LINE_AA, 3)
    for joint in crop["coco"][crop["coco"][:, 2] > 0]:
        cv2.circle(image, place(joint), 20, _SEEN if joint[2] == 2 else _HIDDEN, -1, cv2.LINE_AA, 3)
    return image


def _segments(segments):
    hues = np.arange(256) * 71 % 180
    table = np.stack([hues, np.full(256, 200), np.full(256, 230)], axis=-1).astype(np.uint8)
    table = cv2.cvtColor(table[None], cv2.COLOR_HSV2RGB)[0]
    table[len(SEGMENTS) :] = 40
    table[SOMEONE] = 130
    table[SOMEONE + 1] = 80
    return table[segments]
