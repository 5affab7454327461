"""Detector: ViTPose by transformers, an RT-DETR person detector, then the joints of all its people at once."""

import numpy as np
import torch
from transformers import AutoImageProcessor, AutoModelForObjectDetection, VitPoseForPoseEstimation

from lib.body.layouts import to_h36m
from lib.errors import UserError, describe
from lib.video.detection import Detection, Detector

DET_MODEL = "PekingU/rtdetr_r50vd_coco_o365"
POSE_MODEL = "usyd-community/vitpose-base-simple"
JOINTS = 17  # COCO's


class ViTPose(Detector):
    """Detector of people and joints by two models of transformers.

    Args:
        det_model: folder, or name on the Hugging Face hub, of an object detector that knows the class "person".
        pose_model: folder or name of a ViTPose model of COCO's 17 joints.
        score: of a person, from which on one counts, 0 to 1.
        device: torch's.

    Raises:
        UserError: a model cannot be loaded, or is none of a person's joints.
    """

    def __init__(self, det_model=DET_MODEL, pose_model=POSE_MODEL, score=0.5, device="cpu"):
        self.score, self.device = score, device
        self.find_inputs, self.find = _load(det_model, AutoModelForObjectDetection, "an object detector", device)
        self.pose_inputs, self.pose = _load(pose_model, VitPoseForPoseEstimation, "a ViTPose model", device)
        if "person" not in self.find.config.label2id:
            raise UserError(f"{det_model}: knows no class 'person'")
        if self.pose.config.num_labels != JOINTS:
            raise UserError(f"{pose_model}: is a model of {self.pose.config.num_labels} joints; {JOINTS} are needed")
        self.person = self.find.config.label2id["person"]

    @torch.inference_mode()
    def detect(self, frame, seconds, number):
        boxes, scores = self._people(frame)
        if not len(boxes):
            return []
        corner_and_size = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        inputs = self.pose_inputs(frame, boxes=[corner_and_size], return_tensors="pt").to(self.device)
        if self.pose.config.backbone_config.num_experts > 1:  # ViTPose++; its expert 0 is COCO's
            inputs["dataset_index"] = torch.zeros(len(boxes), dtype=torch.long, device=self.device)
        outputs = self.pose(**inputs)
        poses = self.pose_inputs.post_process_pose_estimation(outputs, boxes=[corner_and_size])[0]
        points = [np.column_stack([pose["keypoints"].numpy(), pose["scores"].numpy()]) for pose in poses]
        return [Detection(*person) for person in zip(to_h36m(points, "coco17"), boxes, map(float, scores))]

    def _people(self, frame):
        """Return boxes (n, 4) x0 y0 x1 y1, px, within the frame, and scores (n,), float32."""
        inputs = self.find_inputs(frame, return_tensors="pt").to(self.device)
        found = self.find_inputs.post_process_object_detection(
            self.find(**inputs), target_sizes=[frame.shape[:2]], threshold=self.score
        )[0]
        people = found["labels"] == self.person
        boxes, scores = found["boxes"][people].cpu().numpy(), found["scores"][people].cpu().numpy()
        height, width = frame.shape[:2]
        return boxes.clip(0, [width, height, width, height]).astype(np.float32), scores


def _load(name, kind, what, device):
    """Return (processor, model) of a folder or hub name, all of whose weights are there."""
    try:
        model, report = kind.from_pretrained(name, output_loading_info=True)
        processor = AutoImageProcessor.from_pretrained(name)
    except ImportError:
        raise
    except Exception as error:  # transformers', the hub's and safetensors' have no common base
        raise UserError(
            f"{name}: cannot be loaded as {what} ({describe(error)}); "
            "without network pass folders: --det-model FOLDER --pose-model FOLDER"
        ) from error
    if kind is VitPoseForPoseEstimation and report["missing_keys"]:  # transformers would leave random weights there
        raise UserError(f"{name}: is no complete ViTPose model: {sorted(report['missing_keys'])[0]} is missing")
    return processor, model.to(device).float().eval()
