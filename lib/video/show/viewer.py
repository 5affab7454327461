"""Page that plays a video's poses: `viewer.html`, one file that a browser opens from disk, with no network."""

import base64
import html
import json
import os
from pathlib import Path
from urllib.parse import quote

import numpy as np

from lib.body.skeleton import JOINTS, LEFT, LIMBS, RIGHT
from lib.files import atomic_path, require_file

_PAGE = Path(__file__).with_name("viewer_page")
EMBED_MOST = 40 * 2**20  # bytes; a larger preview is kept beside the page
_BLOCK_FRAMES = 8192  # frames of one person per block of base64
_BLOCK_BYTES = 3 * 2**20  # of the preview
_KEYPOINT_STEPS = 15000  # per longer side of the image: 0.13 px for 1920 x 1080


def write_viewer(poses, path, preview=None):
    """Write the page that shows `poses` (a `Poses`) in 3D beside the video.

    Positions are stored as int16. World positions count steps from the middle of where the person went, as fine as the
    range allows: a joint is off by less than 1 mm per axis where a person stays within 60 m of that middle, 0.1 mm
    within 6 m. Keypoints are off by 1/30000 of the image's longer side; those farther outside than twice that side
    are moved to there. Arrays are read and written a block at a time.

    Args:
        path: of the page; an existing file is replaced when the new one is complete.
        preview: path of an H.264 MP4 of the video, whose frames have the times `poses.times`. It is embedded up to
            40 MB, so that the page is all there is to copy; a larger one is played from where it is, by its path
            relative to the page, and must be moved along with it. Without one the page shows the keypoints alone.

    Raises:
        UserError: the preview does not exist or the page cannot be written.
    """
    path = Path(path)
    preview = preview and require_file(preview)
    embedded = preview and preview.stat().st_size <= EMBED_MOST
    header = {
        "source": poses.source,
        "width": poses.width,
        "height": poses.height,
        "fps": poses.fps,
        "forward": [float(x) for x in poses.rotation[:, 2]],  # direction of the camera, world axes
        "preview": quote(os.path.relpath(preview, path.parent)) if preview and not embedded else None,
        "keypointStep": max(poses.width, poses.height) / _KEYPOINT_STEPS,
        "limbs": [[a, b, _side(a, b)] for a, b in LIMBS],
        "head": [JOINTS.index("nose"), JOINTS.index("head top")],
        "people": [_describe(person) for person in poses.people],
    }
    template = (_PAGE / "page.html").read_text(encoding="utf-8")
    before, after = template.split("{{data}}")
    before = before.replace("{{style}}", (_PAGE / "style.css").read_text(encoding="utf-8"))
    before = before.replace("{{title}}", html.escape(poses.source))
    after = after.replace("{{script}}", (_PAGE / "viewer.js").read_text(encoding="utf-8"))
    with atomic_path(path) as temporary, open(temporary, "wb") as page:
        page.write(before.encode())
        text = json.dumps(header).replace("<", "\\u003c")  # so that no name ends the script
        page.write(f'<script type="application/json" id="header">{text}</script>\n'.encode())
        for name, data in _blocks(poses, header, preview if embedded else None):
            page.write(f'<script type="text/plain" data-block="{name}">'.encode())
            page.write(base64.b64encode(data))
            page.write(b"</script>\n")
        page.write(after.encode())


def _side(a, b):
    return "left" if {a, b} & set(LEFT) else "right" if {a, b} & set(RIGHT) else "middle"


def _describe(person):
    """Return the header of a person's arrays; lowest and highest coordinates over all joints, m."""
    spans = [person.world[part] for part in _blocks_of(person)]
    low = np.min([span.min((0, 1)) for span in spans], axis=0).astype(float)
    high = np.max([span.max((0, 1)) for span in spans], axis=0).astype(float)
    return {
        "id": int(person.id),
        "low": low.tolist(),
        "high": high.tolist(),
        "step": max(float((high - low).max()) / 2 / 32767, 1e-5),  # m per count
    }


def _blocks_of(person):
    return [slice(start, start + _BLOCK_FRAMES) for start in range(0, len(person.frames), _BLOCK_FRAMES)]


def _blocks(poses, header, preview):
    """Yield (name, bytes) of every array, a block at a time; the page joins blocks of the same name. Little-endian."""
    yield "times", np.asarray(poses.times, "<f8").tobytes()
    for index, (person, about) in enumerate(zip(poses.people, header["people"])):
        middle = (np.array(about["low"]) + about["high"]) / 2
        for part in _blocks_of(person):
            keypoints = person.keypoints[part]
            yield f"frames{index}", person.frames[part].astype("<u4").tobytes()
            yield f"bridged{index}", person.bridged[part].astype("u1").tobytes()
            yield f"world{index}", _counts((person.world[part] - middle) / about["step"])
            yield f"keypoints{index}", _counts(keypoints[..., :2] / header["keypointStep"])
            yield f"confidence{index}", np.round(255 * np.clip(keypoints[..., 2], 0, 1)).astype("u1").tobytes()
    if preview:
        with open(preview, "rb") as video:
            while data := video.read(_BLOCK_BYTES):
                yield "preview", data


def _counts(values):
    return np.clip(np.round(values), -32767, 32767).astype("<i2").tobytes()
