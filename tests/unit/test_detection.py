"""Detectors and files of detections: joint tables, small models made here, and each format in its exact layout."""

import json
import re
import subprocess
import sys
from urllib.error import URLError

import numpy as np
import pytest
import torch
from conftest import ROOT, relative_error

from lib.body.layouts import LAYOUTS, rule, to_h36m, weights
from lib.body.skeleton import JOINTS, LEFT, RIGHT
from lib.errors import UserError
from lib.video.detection import DETECTORS, Detection, Detector, open_detector
from lib.video.detection.keypoints_file import read_keypoints

HEIGHTS = {  # of a person that stands, m; the sources' joints without their side
    "nose": 1.6, "eye": 1.63, "ear": 1.62, "mouth": 1.55, "shoulder": 1.4, "elbow": 1.1, "wrist": 0.9, "hip": 0.9,
    "knee": 0.5, "ankle": 0.1, "head": 1.75, "upper neck": 1.5, "neck": 1.45, "pelvis": 0.9, "spine": 1.15,
    "thorax": 1.4, "toe": 0, "heel": 0, "foot": 0, "middle hip": 0.9,
    "pinky": 0.8, "index": 0.8, "thumb": 0.8,
}  # fmt: skip


def standing(layout, confidence=0.8):
    """(K, 3): the left side at x = 1, the right at -1, y up."""

    def place(joint):
        side = 1 if "left" in joint else -1 if "right" in joint else 0
        part = next(part for part in HEIGHTS if part in joint)
        return side, HEIGHTS[part], confidence

    return np.array([place(joint) for joint in LAYOUTS[layout]], np.float32)


def fails(match, call, *arguments, **options):
    """The call ends with one line that matches."""
    with pytest.raises(UserError, match=match) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)


# Joints


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_sum_to_one_and_sides_stay(layout):
    assert len(LAYOUTS[layout]) == int(re.search(r"\d+$", layout)[0]) == len(set(LAYOUTS[layout]))
    np.testing.assert_allclose(weights(layout).sum(axis=1), 1, atol=1e-6)
    pose = to_h36m(standing(layout), layout)
    assert pose.shape == (17, 3) and pose.dtype == np.float32
    assert (pose[list(LEFT), 0] == 1).all() and (pose[list(RIGHT), 0] == -1).all()
    middle = sorted(set(range(17)) - set(LEFT) - set(RIGHT))
    np.testing.assert_allclose(pose[middle, 0], 0, atol=1e-6)
    np.testing.assert_allclose(pose[:, 2], 0.8)
    heights = dict(zip(JOINTS, pose[:, 1]))
    assert heights["head top"] > heights["nose"] > heights["thorax"] > heights["spine"] > heights["pelvis"]
    assert heights["pelvis"] == pytest.approx(0.9) and heights["spine"] == pytest.approx(1.15)


def test_order_of_the_sources_where_it_is_easily_mistaken():
    order = {
        "coco17": {0: "nose", 3: "left ear", 5: "left shoulder", 10: "right wrist", 11: "left hip", 16: "right ankle"},
        "halpe26": {17: "head top", 18: "neck", 19: "hip", 20: "left big toe", 25: "right heel"},
        "openpose18": {1: "neck", 2: "right shoulder", 8: "right hip", 13: "left ankle", 16: "right ear"},
        "openpose25": {8: "middle hip", 9: "right hip", 14: "left ankle", 17: "right ear", 24: "right heel"},
        "mediapipe33": {7: "left ear", 11: "left shoulder", 16: "right wrist", 23: "left hip", 28: "right ankle"},
        "posetrack17": {1: "upper neck", 2: "head top", 5: "left shoulder", 12: "right hip", 15: "left ankle"},
        "mpii16": {0: "right ankle", 6: "pelvis", 9: "head top", 10: "right wrist", 13: "left shoulder"},
    }
    for layout, joints in order.items():
        assert {index: LAYOUTS[layout][index] for index in joints} == joints


def test_shared_rules_and_own_head_tops():
    assert rule("head top", "coco17") == rule("head top", "mediapipe33") == rule("head top", "openpose25")
    head = to_h36m(standing("coco17"), "coco17")[JOINTS.index("head top")]
    assert head[1] == pytest.approx(1.75 * 1.62 - 0.75 * 1.4)
    assert rule("head top", "halpe26") == rule("head top", "posetrack17") == {"head top": 1}
    for layout in set(LAYOUTS) - {"h36m17"}:
        assert rule("pelvis", layout) == {"left hip": 0.5, "right hip": 0.5}
        assert rule("thorax", layout) == {"left shoulder": 0.5, "right shoulder": 0.5}
    poses = np.random.default_rng(0).random((2, 3, 17, 3), np.float32)
    np.testing.assert_array_equal(to_h36m(poses, "h36m17"), poses)


def test_confidence_is_the_smallest_of_those_used():
    points = standing("coco17")
    points[LAYOUTS["coco17"].index("left hip"), 2] = 0
    points[LAYOUTS["coco17"].index("nose"), 2] = 1.2
    pose = to_h36m(points, "coco17")
    zero = {JOINTS[j] for j in np.flatnonzero(pose[:, 2] == 0)}
    assert zero == {"pelvis", "spine", "left hip"}
    assert pose[0, 1] == pytest.approx(0.9)  # the place stays the weighted one
    assert pose[JOINTS.index("nose"), 2] == 1


# The interface


def test_unknown_detector_and_missing_packages():
    fails("no detector 'vitpos' .did you mean 'vitpose'", open_detector, "vitpos")
    for name, package in {"rtmpose": "rtmlib", "vitpose": "transformers", "hrnet": "timm"}.items():
        script = (
            f"import sys; sys.modules[{package!r}] = None\n"
            "from lib.errors import UserError\nfrom lib.video.detection import open_detector\n"
            f"try: open_detector({name!r})\nexcept UserError as error: print(error)"
        )
        run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, text=True, capture_output=True)
        needed = f"the detector {name} needs the package {package}, which is not installed: pip install -r "
        assert run.stdout == needed + DETECTORS[name][2] + "\n", run.stderr
        assert (ROOT / DETECTORS[name][2]).is_file()


def test_the_interface_alone_is_light():
    heavy = "{'torch', 'cv2', 'rtmlib', 'onnxruntime', 'transformers', 'mediapipe', 'timm'}"
    script = f"import sys, lib.video.detection; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, text=True, capture_output=True).stdout == "set()\n"


def test_with_closes():
    class Closes(Detector):
        closed = False

        def close(self):
            self.closed = True

    with Closes() as detector:
        assert not detector.closed
    assert detector.closed


# Files


def flat(layout, shift=0.0):
    points = standing(layout)
    points[:, :2] = points[:, :2] * 100 + 200 + shift
    return points


def as_list(points):
    return [float(value) for value in points.ravel()]


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def same(detection, layout, shift=0.0):
    points = flat(layout, shift)
    np.testing.assert_allclose(detection.keypoints, to_h36m(points, layout), rtol=1e-6)
    expected = [*points[:, :2].min(axis=0), *points[:, :2].max(axis=0)]
    np.testing.assert_allclose(detection.box, expected, rtol=1e-6)
    assert detection.score == pytest.approx(0.8)


def alphapose(layout, images, identities):
    return [
        {"image_id": image, "category_id": 1, "keypoints": as_list(flat(layout, 9 * i)), "score": 2.9,
         "box": [1.0, 2.0, 3.0, 4.0], "idx": identity}
        for i, (image, identity) in enumerate(zip(images, identities))
    ]  # fmt: skip


@pytest.mark.parametrize("layout", ["coco17", "halpe26"])
def test_alphapose(tmp_path, layout):
    content = alphapose(layout, ["0.jpg", "12.jpg", "12.jpg"], [1, 1, 2])
    with read_keypoints(write(tmp_path / "alphapose-results.json", content)) as file:
        assert [len(file.detect(None, 0.0, number)) for number in (0, 1, 12)] == [1, 0, 2]
        same(file.detect(None, 0.0, 0)[0], layout)
        same(file.detect(None, 0.0, 12)[1], layout, 18)
        assert [d.person for d in file.detect(None, 0.0, 12)] == [1, 2]
        file.check_frames(13)
        fails("entry 1: frame 12, counted from 0, is beyond the video's 12 frames", file.check_frames, 12)
    untracked = alphapose(layout, ["0.jpg", "12.jpg", "12.jpg"], [[0.0]] * 3)
    file = read_keypoints(write(tmp_path / "untracked.json", untracked))
    assert {d.person for number in (0, 12) for d in file.detect(None, 0.0, number)} == {None}


def test_numbers_in_names_and_files_that_count_from_1(tmp_path):
    content = alphapose("coco17", ["clip2_img_000001.png", "clip2_img_000012.png"], [3, 3])
    file = read_keypoints(write(tmp_path / "a.json", content), first=1)
    assert sorted(file.people) == [0, 11] and file.detect(None, 0.0, 11)[0].person == 3
    fails("entry 0: frame 1 is before the first, 5", read_keypoints, tmp_path / "a.json", first=5)
    content[1]["image_id"] = "last.png"
    fails("entry 1: the name 'last.png' has no frame number", read_keypoints, write(tmp_path / "b.json", content))


def test_coco_results(tmp_path):
    content = [
        {"image_id": 7, "category_id": 1, "keypoints": as_list(flat("coco17")), "score": 0.9},
        {"image_id": 7, "category_id": 1, "keypoints": as_list(flat("coco17", 5)), "score": 0.1},
    ]
    first, second = read_keypoints(write(tmp_path / "results.json", content)).detect(None, 0.0, 7)
    same(first, "coco17")
    same(second, "coco17", 5)
    assert first.person is None


def test_someone_who_is_there_twice_is_told(tmp_path, caplog):
    one, far = flat("coco17").reshape(17, 3), flat("coco17", 60).reshape(17, 3)
    frame, path = np.array([0, 0, 5, 5, 5, 7]), tmp_path / "found.npz"
    points = np.stack([one, far, one, far, one + (0.3, 0.2, 0), one])
    np.savez(path, keypoints=points, frame=frame, layout="coco17")
    file = read_keypoints(path)
    told = "a person is there twice, with nearly the same joints, in 1 of 3 frames, first in frame 5: both are kept"
    assert file.warnings == [f"{path}: {told}"] == [record.getMessage() for record in caplog.records]
    assert len(file.detect(None, 0.0, 5)) == 3
    np.savez(path, keypoints=points[:4], frame=frame[:4], layout="coco17")
    assert read_keypoints(path).warnings == []


@pytest.mark.parametrize("layout", ["openpose25", "openpose18"])
def test_openpose(tmp_path, layout):
    def frame(number, *people):
        people = [
            {"person_id": [-1], "pose_keypoints_2d": as_list(points), "face_keypoints_2d": []} for points in people
        ]
        write(tmp_path / f"my_clip2_{number:012d}_keypoints.json", {"version": 1.3, "people": people})

    hidden = flat(layout)
    hidden[LAYOUTS[layout].index("left wrist")] = 0  # as OpenPose writes a joint that it has not found
    frame(0)
    frame(1, flat(layout), hidden)
    frame(2, np.zeros_like(hidden))
    file = read_keypoints(tmp_path)
    assert sorted(file.people) == [1]
    first, second = file.detect(None, 0.0, 1)
    same(first, layout)
    np.testing.assert_allclose(second.box[:2], hidden[hidden[:, 2] > 0, :2].min(axis=0))
    assert second.keypoints[JOINTS.index("left wrist"), 2] == 0 and second.person is None
    other = tmp_path / "other_000000000001_keypoints.json"
    write(other, {"people": []})
    fails("same frame as my_clip2_0+1_keypoints.json", read_keypoints, tmp_path)


def mmpose_instance(layout, shift=0.0):
    points = flat(layout, shift)
    return {
        "keypoints": points[:, :2].tolist(),
        "keypoint_scores": points[:, 2].tolist(),
        "bbox": [[1.0, 2.0, 3.0, 4.0]],
        "bbox_score": 0.7,
    }


@pytest.mark.parametrize(
    "dataset, layout", [("coco", "coco17"), ("halpe26", "halpe26"), ("h36m", "h36m17"), ("mpii", "mpii16")]
)
def test_mmpose(tmp_path, dataset, layout):
    frames = [
        {"frame_id": 1, "instances": []},
        {"frame_id": 2, "instances": [mmpose_instance(layout), mmpose_instance(layout, 5)]},
    ]
    content = {"meta_info": {"dataset_name": dataset, "num_keypoints": 26}, "instance_info": frames}
    file = read_keypoints(write(tmp_path / "results_clip.json", content))
    assert sorted(file.people) == [1]
    first, second = file.detect(None, 0.0, 1)
    same(first, layout)
    same(second, layout, 5)


def test_mmpose_inferencer_counts_from_0(tmp_path):
    content = [{"frame_id": 0, "instances": [mmpose_instance("coco17")]}]
    same(read_keypoints(write(tmp_path / "clip.json", content)).detect(None, 0.0, 0)[0], "coco17")


def test_npz(tmp_path):
    path = tmp_path / "k.npz"
    keypoints = np.stack([flat("mediapipe33"), flat("mediapipe33", 5)])
    np.savez(path, keypoints=keypoints, frame=np.array([3, 3]), person=np.array([8, 9]), layout="mediapipe33")
    first, second = read_keypoints(path).detect(None, 0.0, 3)
    same(first, "mediapipe33")
    same(second, "mediapipe33", 5)
    assert (first.person, second.person) == (8, 9)
    np.savez(path, keypoints=keypoints, frame=np.array([3, 4]), layout="mediapipe3")
    fails("layout: unknown 'mediapipe3' .did you mean 'mediapipe33'", read_keypoints, path)
    np.savez(path, keypoints=keypoints, frame=np.array([3]), layout="mediapipe33")
    fails(r"keypoints has the shape \(2, 33, 3\), \(1, 33, 3\) is needed", read_keypoints, path)
    np.savez(path, keypoints=keypoints, frame=np.array([3.5, 4]), layout="mediapipe33")
    fails("entry 0: frame is no whole number: 3.5$", read_keypoints, path)
    np.savez(path, keypoints=keypoints, layout="mediapipe33")
    fails("frame is missing", read_keypoints, path)
    path.write_bytes(path.read_bytes()[:200])
    fails("is truncated or not an .npz file", read_keypoints, path)


def broken(change):
    """AlphaPose's list with a change to its second entry."""
    content = alphapose("coco17", ["0.jpg", "1.jpg"], [1, 1])
    change(content[1])
    return json.dumps(content)


BAD_FILES = {
    "empty": ("", "bad.json: is empty"),
    "blank": (" \n", "bad.json: is empty"),
    "truncated": (broken(lambda entry: None)[:-40], "bad.json: is no JSON or is cut short .*line 1"),
    "binary": (b"\xff\xfe\x00", "is no JSON"),
    "nobody": ("[]", "holds no person"),
    "a table": ('{"images": []}', "is neither a list"),
    "joints": (broken(lambda entry: entry["keypoints"].append(1.0)), "entry 1: keypoints are no numbers, three for"),
    "fewer": (broken(lambda entry: entry.update(keypoints=[1.0] * 42)), "entry 1: has 14 joints; 17 or 26 are needed"),
    "nan": (broken(lambda e: e["keypoints"].__setitem__(3, float("nan"))), "entry 1: joint 1 .left eye. is not finite"),
    "null": (broken(lambda e: e["keypoints"].__setitem__(50, None)), "entry 1: joint 16 .right ankle. is not finite"),
    "huge": (broken(lambda e: e["keypoints"].__setitem__(0, 1e300)), "entry 1: joint 0 .nose. is not finite"),
    "words": (broken(lambda e: e["keypoints"].__setitem__(0, "x")), "entry 1: keypoints are no numbers"),
    "key": (broken(lambda entry: entry.pop("keypoints")), "entry 1: keypoints is missing"),
    "image": (broken(lambda entry: entry.pop("image_id")), "entry 1: image_id is missing"),
    "person": (broken(lambda entry: entry.update(idx="x")), "entry 1: the person's number is no whole number: 'x'"),
    "numbers": ("[1, 2]", "entry 0: is no table with image_id"),
    "instances": ('{"instance_info": {}}', "instance_info: is no list"),
    "frame_id": ('{"instance_info": [{"instances": []}]}', "entry 0: frame_id is missing"),
    "scores": (
        '{"instance_info": [{"frame_id": 1, "instances": [{"keypoints": [[1, 2]], "keypoint_scores": []}]}]}',
        r"entry 0: instances\[0\]: keypoints and keypoint_scores do not fit",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files(tmp_path, name):
    content, match = BAD_FILES[name]
    path = tmp_path / "bad.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    fails(match, read_keypoints, path)


def test_missing_files(tmp_path):
    (tmp_path / "results.json").touch()
    fails("no such file .did you mean 'results.json'", read_keypoints, tmp_path / "result.json")
    fails("holds no OpenPose output", read_keypoints, tmp_path)
    write(tmp_path / "c_000_keypoints.json", {"people": [{"pose_keypoints_2d": [1.0] * 45}]})
    fails(r"c_000_keypoints.json: people\[0\]: has 15 joints; 25 or 18 are needed", read_keypoints, tmp_path)


# RTMPose

RED = np.zeros((128, 128, 3), np.uint8) + np.array([255, 0, 0], np.uint8)


@pytest.fixture
def onnx_models(tmp_path):
    """Makes a person detector that finds two people where it is red (BGR) and a SimCC model that sees red (RGB)."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("rtmlib")
    helper, numpy_helper, kind = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT

    def save(name, nodes, constants, shape, outputs):
        graph = helper.make_graph(
            nodes,
            name,
            [helper.make_tensor_value_info("input", kind, ["batch", *shape])],
            [helper.make_tensor_value_info(output, kind, size) for output, size in outputs.items()],
            [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    def channel(index):
        """Nodes: "level" is 1 if the picture's channel is above 0 in the mean, else 0."""
        return [
            helper.make_node("Gather", ["input", "channel"], ["plane"], axis=1),
            helper.make_node("ReduceMean", ["plane"], ["mean"], axes=[1, 2, 3], keepdims=1),
            helper.make_node("Reshape", ["mean", "one"], ["scalar"]),
            helper.make_node("Relu", ["scalar"], ["above"]),
            helper.make_node("Sign", ["above"], ["level"]),
        ], {"channel": np.array([index]), "one": np.array([1])}

    def people():
        nodes, constants = channel(2)
        boxes = np.array([[[20, 16, 36, 48, 1], [30, 20, 40, 44, 1]]], np.float32)
        scores = np.array([0, 0, 0, 0, 1], np.float32)  # a box keeps its corners and loses its score
        nodes += [
            helper.make_node("Sub", ["level", "one_f"], ["drop"]),
            helper.make_node("Mul", ["drop", "scores"], ["drops"]),
            helper.make_node("Add", ["boxes", "drops"], ["dets"]),
        ]
        constants |= {"boxes": boxes, "scores": scores, "one_f": np.array([1], np.float32)}
        return save("people.onnx", nodes, constants, (3, 64, 64), {"dets": (1, 2, 5)})

    def pose(joints):
        nodes, constants = channel(0)
        simcc_x, simcc_y = np.zeros((1, joints, 96), np.float32), np.zeros((1, joints, 128), np.float32)
        simcc_x[0, range(joints), np.arange(joints) + 30] = 0.9
        simcc_y[0, range(joints), np.arange(joints) * 2 + 20] = 0.7
        nodes += [helper.make_node("Mul", ["level", axis], ["simcc_" + axis]) for axis in "xy"]
        outputs = {"simcc_x": simcc_x.shape, "simcc_y": simcc_y.shape}
        return save(f"pose{joints}.onnx", nodes, constants | {"x": simcc_x, "y": simcc_y}, (3, 64, 48), outputs)

    return people, pose


@pytest.mark.parametrize("layout", ["coco17", "halpe26"])
def test_rtmpose(onnx_models, layout, capsys):
    people, pose = onnx_models
    joints = len(LAYOUTS[layout])
    with open_detector("rtmpose", det_model=people(), pose_model=pose(joints)) as detector:
        assert detector.detect(np.zeros_like(RED), 0.0, 0) == []
        found = detector.detect(RED, 0.0, 0)
    assert len(found) == 2 and capsys.readouterr().out == ""
    for detection, box in zip(found, ([40, 32, 72, 96], [60, 40, 80, 88])):  # the frame is twice the model's picture
        np.testing.assert_allclose(detection.box, box, rtol=1e-5)
        height = (box[3] - box[1]) * 1.25
        corner = (box[0] + box[2] - height * 0.75) / 2, (box[1] + box[3] - height) / 2
        points = np.stack(
            [
                corner[0] + (np.arange(joints) + 30) / 96 * height * 0.75,
                corner[1] + (np.arange(joints) * 2 + 20) / 128 * height,
                np.full(joints, 0.8),
            ],
            axis=1,
        )
        np.testing.assert_allclose(detection.keypoints, to_h36m(points, layout), rtol=1e-4)
        assert detection.score == pytest.approx(0.8)


def test_rtmpose_models_that_do_not_fit(onnx_models, tmp_path, monkeypatch):
    people, pose = onnx_models
    open_with = lambda **models: open_detector("rtmpose", **models)  # noqa: E731
    fails("is a model of 14 joints; 17 or 26 are needed", open_with, det_model=people(), pose_model=pose(14))
    fails("people.onnx: is no RTMPose model", open_with, det_model=people(), pose_model=people())
    fails("no such file .did you mean 'people.onnx'", open_with, det_model=tmp_path / "peoples.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not ONNX")
    fails("bad.onnx: is no person detector", open_with, det_model=tmp_path / "bad.onnx", pose_model=pose(17))

    def offline(*arguments, **options):
        raise URLError("no route to host")

    monkeypatch.setattr("rtmlib.tools.base.download_checkpoint", offline)
    fails("person detector cannot be fetched .*no route.*pass --det-model FILE --pose-model FILE", open_with)
    fails("the RTMPose model cannot be fetched", open_with, det_model=people())


# ViTPose

PATCHES = [
    (1 + joint % 4, 1 + joint // 4) for joint in range(17)
]  # column, row, of 6 x 8: the small model sees it there


@pytest.fixture(scope="module")
def vitpose_folders(tmp_path_factory):
    """RT-DETR that takes everything for a person, or for a cat, and ViTPose that sees each joint in a certain patch."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vitpose")
    resnet = transformers.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4, layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = transformers.RTDetrConfig(
        backbone_config=resnet, encoder_in_channels=[8] * 3, encoder_hidden_dim=16, encoder_ffn_dim=16,
        encoder_attention_heads=2, d_model=16, decoder_in_channels=[16] * 3, decoder_ffn_dim=16, decoder_layers=1,
        decoder_attention_heads=2, num_queries=3, num_denoising=0, id2label={0: "person", 1: "cat"},
        label2id={"person": 0, "cat": 1},
    )  # fmt: skip
    finder = transformers.RTDetrForObjectDetection(config).eval()
    for name, logits in {"person": [3.0, -3.0], "cat": [-3.0, 3.0]}.items():
        for head in finder.model.decoder.class_embed:
            torch.nn.init.zeros_(head.weight)
            head.bias.data = torch.tensor(logits)
        finder.save_pretrained(folder / name)
        transformers.RTDetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder / name)

    def pose(name, joints):
        backbone = transformers.VitPoseBackboneConfig(
            image_size=[128, 96], patch_size=[16, 16], hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
            out_features=["stage1"],
        )  # fmt: skip
        model = transformers.VitPoseForPoseEstimation(
            transformers.VitPoseConfig(
                backbone_config=backbone, num_labels=joints, use_simple_decoder=True, scale_factor=4
            )
        )
        layer = model.backbone.encoder.layer[0]
        still = [model.backbone.embeddings.patch_embeddings.projection, layer.attention.output.dense, layer.mlp.fc2]
        for part in [*still, model.head.conv]:
            torch.nn.init.zeros_(part.weight)
            torch.nn.init.zeros_(part.bias)
        places = torch.zeros(1, 49, 32)  # the first is added to all
        for joint, (column, line) in list(enumerate(PATCHES))[:joints]:
            places[0, 1 + line * 6 + column, joint] = 1
            model.head.conv.weight.data[joint, joint, 1, 1] = 0.2
        model.backbone.embeddings.position_embeddings.data = places
        model.save_pretrained(folder / name)
        transformers.VitPoseImageProcessor(size={"height": 128, "width": 96}).save_pretrained(folder / name)

    pose("pose", 17)
    pose("pose5", 5)
    return folder


def test_vitpose(vitpose_folders):
    frame = np.random.default_rng(0).integers(0, 256, (120, 200, 3), dtype=np.uint8)
    with open_detector(
        "vitpose", det_model=vitpose_folders / "person", pose_model=vitpose_folders / "pose"
    ) as detector:
        found = detector.detect(frame, 0.0, 0)
    assert len(found) == 3
    for detection in found:
        assert detection.score == pytest.approx(1 / (1 + np.exp(-3)), abs=1e-4)
        x0, y0, x1, y1 = detection.box
        assert 0 <= x0 < x1 <= 200 and 0 <= y0 < y1 <= 120
        width, height = x1 - x0, y1 - y0
        region = np.array([max(width, height * 0.75), max(height, width / 0.75)]) * 1.25
        cells = np.array(PATCHES) * 4 + 1.5  # of the heatmap's 24 x 32: the patches' middles
        places = [(x0 + x1) / 2, (y0 + y1) / 2] - region / 2 + cells / [23, 31] * region
        points = np.column_stack([places, np.full(17, 0.5)])
        error = (detection.keypoints - to_h36m(points, "coco17"))[:, :2] / region * [23, 31]
        assert np.abs(error).max() < 0.01, "cells"
        assert (0 < detection.keypoints[:, 2]).all() and (detection.keypoints[:, 2] <= 1).all()
    assert len({tuple(d.box) for d in found}) == 3


def test_vitpose_leaves_out_what_is_no_person(vitpose_folders):
    options = {"det_model": vitpose_folders / "cat", "pose_model": vitpose_folders / "pose"}
    assert open_detector("vitpose", **options).detect(RED, 0.0, 0) == []
    options = {"det_model": vitpose_folders / "person", "pose_model": vitpose_folders / "pose", "score": 0.99}
    assert open_detector("vitpose", **options).detect(RED, 0.0, 0) == []


def test_vitpose_models_that_do_not_fit(vitpose_folders, tmp_path, monkeypatch):
    folder = vitpose_folders
    open_with = lambda det, pose: open_detector("vitpose", det_model=det, pose_model=pose)  # noqa: E731
    fails("pose5: is a model of 5 joints; 17 are needed", open_with, folder / "person", folder / "pose5")
    fails("pose: cannot be loaded as an object detector", open_with, folder / "pose", folder / "pose")
    fails("person: ", open_with, folder / "person", folder / "person")
    fails("cannot be loaded .*pass folders: --det-model FOLDER", open_with, tmp_path / "none", folder / "pose")


# HRNet


def published_hrnet():
    """The published HRNet-W48's tensors {name: shape}, written down from its source, in its order."""
    tensors = {}

    def conv(name, into, out, size):
        tensors[f"{name}.weight"] = (out, into, size, size)

    def norm(name, channels):
        for part in ("weight", "bias", "running_mean", "running_var"):
            tensors[f"{name}.{part}"] = (channels,)

    def both(name, into, out, size):
        conv(f"{name}.0", into, out, size)
        norm(f"{name}.1", out)

    def transition(name, into, out):
        for i, channels in enumerate(out):
            if i >= len(into):
                both(f"{name}.{i}.0", into[-1], channels, 3)
            elif into[i] != channels:
                both(f"{name}.{i}", into[i], channels, 3)

    def stage(name, modules, channels, last_alone):
        for m in range(modules):
            for branch, width in enumerate(channels):
                for block in range(4):
                    for part in (1, 2):
                        conv(f"{name}.{m}.branches.{branch}.{block}.conv{part}", width, width, 3)
                        norm(f"{name}.{m}.branches.{branch}.{block}.bn{part}", width)
            for i in range(1 if last_alone and m == modules - 1 else len(channels)):
                for j in range(len(channels)):
                    fuse = f"{name}.{m}.fuse_layers.{i}.{j}"
                    if j > i:
                        both(fuse, channels[j], channels[i], 1)
                    for k in range(i - j):
                        both(f"{fuse}.{k}", channels[j], channels[i] if k == i - j - 1 else channels[j], 3)

    for index, into in ((1, 3), (2, 64)):
        conv(f"conv{index}", into, 64, 3)
        norm(f"bn{index}", 64)
    for block in range(4):
        sizes = ((64 if block == 0 else 256, 64, 1), (64, 64, 3), (64, 256, 1))
        for part, (into, out, size) in enumerate(sizes, start=1):
            conv(f"layer1.{block}.conv{part}", into, out, size)
            norm(f"layer1.{block}.bn{part}", out)
    both("layer1.0.downsample", 64, 256, 1)
    widths = [48, 96, 192, 384]
    transition("transition1", [256], widths[:2])
    stage("stage2", 1, widths[:2], False)
    transition("transition2", widths[:2], widths[:3])
    stage("stage3", 4, widths[:3], False)
    transition("transition3", widths[:3], widths)
    stage("stage4", 3, widths, True)
    conv("final_layer", 48, 17, 1)
    tensors["final_layer.bias"] = (17,)
    return tensors


@pytest.fixture(scope="module")
def hrnet_files(tmp_path_factory):
    """A person detector and HRNet-W48 of random weights, the latter named as published, in the old file format."""
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("hrnet")
    state = {}
    for name, shape in published_hrnet().items():
        state[name] = torch.randn(shape) * (2 / np.prod(shape[1:])) ** 0.5 if len(shape) == 4 else torch.zeros(shape)
        if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
            state[name] = torch.rand(shape) * 0.5 + 0.5
    torch.save(state, folder / "pose_hrnet_w48_256x192.pth", _use_new_zipfile_serialization=False)
    people = fasterrcnn_mobilenet_v3_large_fpn(weights=None, weights_backbone=None)
    torch.save(people.state_dict(), folder / "people.pth")
    return folder


@pytest.fixture(scope="module")
def hrnet(hrnet_files):
    files = {"det_model": hrnet_files / "people.pth", "pose_model": hrnet_files / "pose_hrnet_w48_256x192.pth"}
    return open_detector("hrnet", **files)


def test_hrnet_is_timms_with_the_published_weights(hrnet, hrnet_files):
    import timm

    state = torch.load(hrnet_files / "pose_hrnet_w48_256x192.pth", weights_only=True)
    whole = timm.create_model("hrnet_w48", features_only=True, feature_location="", out_indices=(1,)).eval()
    missing, extra = whole.load_state_dict(state, strict=False)
    assert set(extra) == {"final_layer.weight", "final_layer.bias"}
    left = {name for name in missing if not name.endswith("num_batches_tracked")}
    assert left and all(re.match(r"stage4\.2\.fuse_layers\.[123]\.", name) for name in left)  # the coarser branches
    assert hrnet.size == (256, 192)
    picture = torch.randn(1, 3, 256, 192)
    with torch.inference_mode():
        expected = torch.nn.functional.conv2d(whole(picture)[0], state["final_layer.weight"], state["final_layer.bias"])
        heatmaps = hrnet.pose.final_layer(hrnet.pose(picture)[0])
    assert heatmaps.shape == (1, 17, 64, 48) and float(heatmaps.std()) > 0
    assert relative_error(heatmaps, expected) < 1e-6


def test_hrnet_finds_a_bright_spot_for_each_person(hrnet, monkeypatch):
    """A stand-in for the network: the heatmaps are the crop itself, made smaller."""
    boxes = torch.tensor([[40.0, 30, 120, 200], [200.0, 50, 300, 120], [0.0, 0, 9, 9], [0.0, 0, 9, 9]])
    spots = np.array([[75.0, 100], [230, 95]])
    x, y = np.meshgrid(np.arange(320), np.arange(240))
    frame = sum(255 * np.exp(-((x - a) ** 2 + (y - b) ** 2) / 100) for a, b in spots).clip(0, 255)
    frame = np.repeat(frame[..., None], 3, axis=2).astype(np.uint8)
    batches = []

    class Crop(torch.nn.Module):
        final_layer = torch.nn.Identity()

        def forward(self, pictures):
            batches.append(pictures.shape)
            small = torch.nn.functional.interpolate(pictures[:, :1], scale_factor=0.25)
            return [small.expand(-1, 17, -1, -1)]

    found = {"boxes": boxes, "labels": torch.tensor([1, 1, 3, 1]), "scores": torch.tensor([0.9, 0.8, 0.9, 0.1])}
    monkeypatch.setattr(hrnet, "pose", Crop())
    monkeypatch.setattr(hrnet, "people", lambda pictures: [found])
    detections = hrnet.detect(frame, 0.0, 0)
    assert batches == [(2, 3, 256, 192)]  # all people at once; neither the other class nor the unlikely one
    assert [d.score for d in detections] == pytest.approx([0.9, 0.8])
    for detection, box, spot in zip(detections, boxes, spots):
        assert isinstance(detection, Detection)
        np.testing.assert_array_equal(detection.box, box.numpy())
        cell = max(box[2] - box[0], (box[3] - box[1]) * 0.75) * 1.25 / 48
        assert np.abs(detection.keypoints[:, :2] - spot).max() < 0.75 * float(cell)
    monkeypatch.setattr(hrnet, "people", lambda pictures: [{key: value[:0] for key, value in found.items()}])
    assert hrnet.detect(frame, 0.0, 1) == []


def test_hrnet_crops_as_published(hrnet):
    cv2 = pytest.importorskip("cv2")
    from lib.video.detection.hrnet import MEAN, STD, crops, padded

    frame = np.random.default_rng(0).integers(0, 256, (100, 80, 3), dtype=np.uint8)
    boxes = torch.tensor([[10.0, 20, 40, 90], [-5.0, 50, 95, 100]])
    regions = padded(boxes, (64, 48))
    np.testing.assert_allclose(regions[0], [25, 55, 70 * 0.75 * 1.25, 70 * 1.25])
    np.testing.assert_allclose(regions[1], [45, 75, 125, 100 / 0.75 * 1.25], rtol=1e-6)
    cut = crops(torch.tensor(frame).permute(2, 0, 1).float() / 255, regions, (64, 48))
    for (x, y, width, _), crop in zip(regions.tolist(), cut):
        source = np.float32([[x, y], [x, y - width / 2], [x - width / 2, y - width / 2]])
        affine = cv2.getAffineTransform(source, np.float32([[24, 32], [24, 8], [0, 8]]))
        expected = cv2.warpAffine(frame.astype(np.float32) / 255, affine, (48, 64), flags=cv2.INTER_LINEAR)
        np.testing.assert_allclose(crop.permute(1, 2, 0) * torch.tensor(STD) + torch.tensor(MEAN), expected, atol=0.05)


def test_decoding_of_heatmaps():
    from lib.video.detection.hrnet import decode

    heatmaps = torch.zeros(1, 5, 64, 48)
    heatmaps[0, 0, 20, 10], heatmaps[0, 0, 20, 11], heatmaps[0, 0, 19, 10] = 0.9, 0.5, 0.4  # right, up
    heatmaps[0, 1, 63, 47] = 0.8  # no shift in the corner
    heatmaps[0, 2, 30, 1], heatmaps[0, 2, 30, 2] = 0.7, 0.3  # nor in the second column, as published
    heatmaps[0, 3] = -1  # nothing is seen
    heatmaps[0, 4, 40, 30] = 1.0  # no slope, no shift
    points = decode(heatmaps, torch.tensor([[100.0, 200, 96, 128]]))[0].numpy()
    cells = np.array([[10.25, 19.75], [47, 63], [1, 30], [0, 0], [30, 40]])
    np.testing.assert_allclose(points[:, :2], [100 - 48, 200 - 64] + cells * 2, rtol=1e-6)
    np.testing.assert_allclose(points[:, 2], [0.9, 0.8, 0.7, -1, 1], rtol=1e-6)


def test_hrnet_weights_are_loaded_strictly(tmp_path):
    from lib.video.detection.hrnet import load_strictly

    state = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)).state_dict()

    def load(**changes):
        model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
        torch.save({name: t for name, t in (state | changes).items() if t is not None}, tmp_path / "w.pth")
        load_strictly(model, tmp_path / "w.pth", "this")
        return model

    assert torch.equal(load()[0].weight, state["0.weight"])
    load(**{"1.num_batches_tracked": None})  # not in files by old releases, and of no use here
    fails("w.pth: holds no weights of this: 0.weight is missing", load, **{"0.weight": None, "1.bias": None})
    fails(r"1.bias is \(4,\), \(3,\) is needed", load, **{"1.bias": torch.zeros(4)})
    fails("2.weight is too many", load, **{"2.weight": torch.zeros(4)})


def test_hrnet_weights_that_do_not_fit(hrnet_files, tmp_path, monkeypatch):
    from conftest import Trap

    people, pose = hrnet_files / "people.pth", hrnet_files / "pose_hrnet_w48_256x192.pth"
    fails("pass --pose-model FILE, from https", open_detector, "hrnet", det_model=people)
    fails("holds no weights of HRNet-W48: conv1.weight is missing", open_detector, "hrnet", pose_model=people)
    torch.save(Trap(tmp_path / "sprung"), tmp_path / "trap.pth")
    fails(
        "trap.pth: cannot be read as PyTorch weights; a file of tensors only is needed$",
        open_detector,
        "hrnet",
        pose_model=tmp_path / "trap.pth",
    )
    assert not (tmp_path / "sprung").exists()

    def offline(*arguments, **options):
        raise URLError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    fails("person detector cannot be fetched .*pass --det-model FILE", open_detector, "hrnet", pose_model=pose)
