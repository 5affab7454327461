"""Detector: RTMPose by rtmlib (ONNX Runtime), a YOLOX person detector, then the joints of each person."""

import contextlib
import sys

import numpy as np
import rtmlib

from lib.body.layouts import to_h36m
from lib.errors import UserError, describe
from lib.files import require_file
from lib.video.detection import Detection, Detector

LAYOUTS = {17: ("coco17", rtmlib.Body), 26: ("halpe26", rtmlib.BodyWithFeet)}  # by joints: layout, rtmlib's own models


class RTMPose(Detector):
    """Detector of people and joints by two ONNX files.

    Args:
        det_model: file of a person detector, NMS included, as those of rtmlib; None: rtmlib fetches its own.
        pose_model: file of an RTMPose model of 17 (COCO) or 26 (Halpe) joints; None: rtmlib fetches its own.
        joints: 17 or 26, of the model that is fetched.
        mode: size of the models that are fetched: "lightweight", "balanced" or "performance".
        device: "cpu", or "cuda" (needs onnxruntime-gpu).

    Raises:
        UserError: a file is missing or no such model, or a model cannot be fetched.
    """

    def __init__(self, det_model=None, pose_model=None, joints=26, mode="balanced", device="cpu"):
        urls, device = LAYOUTS[joints][1].MODE[mode], device.split(":")[0]
        blank = np.zeros((64, 64, 3), np.uint8)
        with _trying(det_model, "person detector"):
            self.people = _load(rtmlib.YOLOX, det_model or urls["det"], urls["det_input_size"], device)
            self.people(blank)
        with _trying(pose_model, "RTMPose model"):
            self.pose = _load(rtmlib.RTMPose, pose_model or urls["pose"], urls["pose_input_size"], device)
            found = self.pose(blank)[0].shape[1]
        if found not in LAYOUTS:
            raise UserError(f"{pose_model}: is a model of {found} joints; {' or '.join(map(str, LAYOUTS))} are needed")
        self.layout = LAYOUTS[found][0]

    def detect(self, frame, seconds, number):
        # YOLOX was trained on BGR, RTMPose on RGB; rtmlib's own solutions give BGR to both (its issue 48).
        boxes = np.asarray(self.people(np.ascontiguousarray(frame[..., ::-1])), np.float32).reshape(-1, 4)
        if not len(boxes):  # rtmlib would search the whole frame instead
            return []
        keypoints, scores = self.pose(frame, boxes)
        people = to_h36m(np.concatenate([keypoints, scores[..., None]], axis=-1), self.layout)
        return [Detection(person, box, float(person[:, 2].mean())) for person, box in zip(people, boxes)]


def _load(kind, model, size, device):
    """Open rtmlib's tool, at the image size that the file itself states, or else at `size`."""
    with contextlib.redirect_stdout(sys.stderr):  # it prints a line for each model
        tool = kind(str(model), size, device=device)
    height, width = tool.session.get_inputs()[0].shape[2:]
    if isinstance(height, int) and isinstance(width, int):
        tool.model_input_size = (height, width) if kind is rtmlib.YOLOX else (width, height)
    return tool


@contextlib.contextmanager
def _trying(file, what):
    """Turn errors in the block into a `UserError` of one line.

    Args:
        file: path of the model, or None if it is fetched.
    """
    if file is not None:
        require_file(file)
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # ONNX Runtime's, rtmlib's and the network's have no common base
        if file is not None:
            raise UserError(f"{file}: is no {what} that rtmlib can run ({describe(error)})") from error
        raise UserError(
            f"the {what} cannot be fetched ({describe(error)}); without network pass --det-model FILE --pose-model FILE"
        ) from error
