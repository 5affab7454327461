"""Cues of frames after they were estimated: their store, crops, and degrading of exact ones."""

import os
import time

import numpy as np
import pytest
import torch
from test_cues import SAMPLE, check_normal, fails

from lib.model.cues.crop import crop_cues
from lib.model.cues.degrade import degrade_depth, degrade_flow
from lib.model.cues.normalise import normalised
from lib.model.cues.store import INDEX, check_target, identify, open_cues, state_of
from lib.model.cues.writer import CueWriter

VIDEO = {"name": "a.mp4", "bytes": 3, "sha256": "00"}
DIS = {"name": "dis", "max_side": 512}


# Depth


def test_normalised_depth_where_most_is_one_plane_or_all_is():
    inverse = torch.zeros(2, 20, 30)
    inverse[0, :5, :10] = 2.0
    depth = normalised(inverse)
    assert float(depth[0].max()) == pytest.approx(2 / (0.5 * float(inverse[0].mean())), rel=1e-4) and not depth[1].any()
    check_normal(normalised(torch.rand(3, 20, 30) * 5 + 2))
    torch.testing.assert_close(normalised(inverse * 7 + 3), depth, rtol=1e-4, atol=1e-4)


# The store


def maps(count, first=0):
    return np.arange(first, first + count, dtype=np.float32)[:, None, None, None] + np.zeros(
        (count, 2, 4, 6), np.float32
    )


def writer(folder, **changes):
    made = {"cue": "flow", "video": VIDEO, "frame": (12, 8), "shape": (2, 4, 6), "settings": DIS} | changes
    return CueWriter(folder, **made)


def written(folder, count=5):
    with writer(folder) as growing:
        growing.add(maps(count))
        growing.finish()
    return folder


def test_a_store_keeps_maps_and_what_they_are_of(tmp_path):
    cues = open_cues(written(tmp_path / "s"))
    assert cues.video == VIDEO and cues.frame == (12, 8) and cues.estimators == {"flow": DIS}
    assert cues.arrays["flow"].dtype == np.float16 and cues.arrays["flow"].shape == (5, 2, 4, 6)
    np.testing.assert_array_equal(cues.arrays["flow"][3], maps(1, 3)[0])
    np.testing.assert_array_equal(np.load(tmp_path / "s" / "flow.npy"), maps(5))
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["flow.npy", INDEX]
    with writer(tmp_path / "s", cue="depth", shape=(4, 6)) as growing:
        growing.add(np.full((5, 4, 6), 1e6))
        growing.finish()
    cues = open_cues(tmp_path / "s")
    assert list(cues.arrays) == ["flow", "depth"] and cues.arrays["depth"][4, 0, 0] == 65504


def test_writing_goes_on_after_what_was_saved_and_forgets_the_rest(tmp_path):
    with writer(tmp_path) as growing:
        growing.add(maps(3))
    with open(tmp_path / ".flow.unfinished.npy", "ab") as handle:
        handle.write(b"half of a map")
    with writer(tmp_path) as growing:
        assert growing.frames == 3 and growing.last[0, 0, 0] == 2
        growing.add(maps(2, 3))
        growing.finish()
    np.testing.assert_array_equal(np.load(tmp_path / "flow.npy"), maps(5))


def test_what_is_left_of_other_settings_or_damaged_is_not_gone_on_with(tmp_path, caplog):
    for damage in (False, True):
        with writer(tmp_path) as growing:
            growing.add(maps(3))
        if damage:
            data = bytearray((tmp_path / ".flow.unfinished.npy").read_bytes())
            data[-5] ^= 1
            (tmp_path / ".flow.unfinished.npy").write_bytes(data)
        with writer(tmp_path, **({} if damage else {"settings": DIS | {"max_side": 99}})) as growing:
            assert growing.frames == 0 and growing.last is None
    assert caplog.text.count("is damaged (its checksum is wrong); flow is made from its start") == 1


def test_a_process_that_ends_between_index_and_array_has_lost_nothing(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("lib.model.cues.writer.os.replace", stop_at("flow.npy"))
        with pytest.raises(KeyboardInterrupt), writer(tmp_path) as growing:
            growing.add(maps(5))
            growing.finish()
    assert "is gone" in state_of(tmp_path, "flow", DIS)
    with writer(tmp_path) as growing:
        assert growing.frames == 5
        growing.finish()
    assert state_of(tmp_path, "flow", DIS) is None


def stop_at(name):

    replace = os.replace

    def stopping(source, target):
        if str(target).endswith(name):
            raise KeyboardInterrupt
        replace(source, target)

    return stopping


def test_damage_to_a_store_is_named(tmp_path):
    store = written(tmp_path / "s")
    assert state_of(store, "flow", DIS) is None and state_of(store, "depth", DIS) == ""
    assert "made by dis with other settings" in state_of(store, "flow", DIS | {"max_side": 9})
    file, index = store / "flow.npy", store / INDEX
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"x")
    assert f"{file} has changed" in state_of(store, "flow", DIS)
    file.write_bytes(whole[:200])
    fails(f"flow.npy: is truncated; remove {store} and make the cues again", open_cues, store)
    file.unlink()
    fails("flow.npy: no such file; remove", open_cues, store)
    good = index.read_text()
    for text, match in (
        (good.replace('"version": 1', '"version": 2'), "has version 2, this project reads 1"),
        ("{", "is damaged or no index of cues"),
        ('{"format": "pose-store", "version": 1}', "no index of cues .format is 'pose-store'"),
        (good.replace('"shape"', '"shap"'), "is damaged or no index of cues"),
    ):
        index.write_text(text)
        fails(match, open_cues, store)
        fails(match, check_target, store, VIDEO)
    fails("index.json: no such file; tools/extract_cues.py writes it", open_cues, tmp_path)


def test_a_store_of_another_video_is_not_replaced(tmp_path):
    store = written(tmp_path / "s")
    check_target(store, VIDEO)
    check_target(tmp_path / "new", VIDEO)
    fails("holds cues of another video, a.mp4, or of an earlier one", check_target, store, identify(SAMPLE))
    assert identify(SAMPLE)["bytes"] == SAMPLE.stat().st_size


# Crops


def linear(width, height, frame=None):
    """(2, height, width): x and y of each pixel's centre, px of the frame."""
    frame = frame or (width, height)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x * frame[0] / width, y * frame[1] / height])


def test_a_crop_shows_the_flow_of_its_places_in_its_own_px():
    box = torch.tensor([[10.0, 8.0, 42.0, 72.0], [20.0, 30.0, 36.0, 46.0]])
    flow, depth = crop_cues(linear(80, 90), None, box, (16, 24))
    assert flow.shape == (2, 2, 24, 16) and depth is None
    for one, (x0, y0, x1, y1) in zip(flow, box.tolist()):
        x = x0 + (x1 - x0) * (np.arange(16) + 0.5) / 16
        y = y0 + (y1 - y0) * (np.arange(24) + 0.5) / 24
        np.testing.assert_allclose(one[0], np.tile(x * 16 / (x1 - x0), (24, 1)), rtol=1e-4)
        np.testing.assert_allclose(one[1], np.tile(y * 24 / (y1 - y0), (16, 1)).T, rtol=1e-4)
    single, _ = crop_cues(linear(80, 90).numpy(), None, box[0].numpy(), (16, 24))
    torch.testing.assert_close(single, flow[0])


def test_maps_may_be_smaller_than_the_frame_of_box_and_flow():
    flow, depth = crop_cues(linear(40, 45, (80, 90)), linear(40, 45)[0], [10, 8, 42, 72], (16, 24), frame=(80, 90))
    expected, expected_depth = crop_cues(linear(80, 90), linear(80, 90)[0], [10, 8, 42, 72], (16, 24))
    torch.testing.assert_close(flow, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(depth, expected_depth, rtol=1e-3, atol=1e-3)


def test_depth_is_normalised_over_what_of_the_crop_is_in_the_frame():
    inverse = torch.rand(60, 80) * 9
    flow, depth = crop_cues(torch.ones(2, 60, 80), 3 * inverse + 5, [-40, 0, 40, 60], (80, 60))
    assert depth.shape == (1, 60, 80) and not depth[..., :40].any() and not flow[..., :40].any()
    torch.testing.assert_close(depth[0, :, 40:], normalised(inverse[:, :40]), rtol=1e-3, atol=1e-3)
    assert (flow[..., 40:] - 1).abs().max() < 1e-4
    with pytest.raises(ValueError, match="boxes: expected x0 < x1"):
        crop_cues(None, inverse, [3, 4, 3, 9], (8, 8))


def test_boxes_outside_of_the_frame_and_cues_of_different_frames_are_one_line():
    flow, depth = torch.ones(2, 60, 80), torch.rand(60, 80)
    for box in ([80, 0, 99, 30], [-9, 4, 0, 9], [3, -20, 9, -1], [3, 60.5, 9, 70]):
        fails(r"box .*: is outside of the frame of 80 x 60 px; leave it out", crop_cues, flow, depth, box, (8, 8))
    boxes = torch.tensor([[1.0, 1, 9, 9], [-200, 3, -100, 50]])
    fails(r"box -200, 3, -100, 50: is outside", crop_cues, flow, None, boxes, (8, 8))
    assert crop_cues(flow, depth, [159, 4, 170, 9], (8, 8), frame=(160, 120))[0].shape == (2, 8, 8)
    fails("are of different sizes, 40 x 30 and 80 x 60 px", crop_cues, flow, depth[::2, ::2], [1, 1, 9, 9], (8, 8))
    assert crop_cues(flow, depth[::2, ::2], [1, 1, 9, 9], (8, 8), frame=(80, 60))[1].shape == (1, 8, 8)


# Degrading


def scene(count=64):
    """Exact cues of a person, a rectangle 3 MADs nearer than a slope, that moves by (6, -2) px."""
    depth = torch.linspace(-1, 1, 128)[:, None].repeat(count, 1, 1, 96)
    depth[..., 30:110, 30:66] = 3.0
    flow = torch.zeros(count, 2, 128, 96)
    flow[:, :, 30:110, 30:66] = torch.tensor([6.0, -2.0])[:, None, None]
    return depth, flow


def test_degraded_depth_keeps_what_is_near_and_loses_edges():
    torch.manual_seed(0)
    exact, _ = scene()
    depth = degrade_depth(exact)
    assert depth.shape == exact.shape and depth.isfinite().all()
    person, ground = depth[:, 0, 60:80, 40:56].flatten(1), depth[:, 0, 60:80, 4:16].flatten(1)
    nearer = (person.median(1).values - ground.median(1).values) > 0.8  # nearly always: a hole may hide one of them
    assert 0.75 < nearer.float().mean()
    steps = depth[:, 0, 70].diff(dim=1).abs().amax(1)
    assert steps.median() < 1.6 and exact[0, 0, 70].diff().abs().max() > 2.8
    shift = depth.flatten(1).median(1).values
    assert 0.15 < shift.std() < 1.0
    holes = (depth[:, 0] == 0).flatten(1).float().mean(1)
    assert 0.2 < (holes > 0).float().mean() < 0.8 and holes.max() < 0.2


def test_degraded_depth_is_a_monotone_function_of_the_exact_one():
    torch.manual_seed(0)
    ramp = torch.linspace(-2, 3, 96).repeat(32, 1, 128, 1)
    depth = degrade_depth(ramp)[:, 0, 64]
    rising = depth.diff(dim=1)
    whole = (depth != 0).all(1)
    assert whole.sum() > 5 and (rising[whole] > -1e-4).all()
    bent = depth[whole]
    straightness = (bent[:, 48] - bent[:, 8]) / (bent[:, 88] - bent[:, 48])
    assert straightness.min() < 0.8 and straightness.max() > 1.25


def test_degraded_flow_falls_short_and_bleeds_over_edges():
    torch.manual_seed(0)
    _, exact = scene()
    flow = degrade_flow(exact)
    assert flow.shape == exact.shape and flow.isfinite().all()
    inside = flow[:, :, 60:80, 44:52].mean((2, 3)) / torch.tensor([6.0, -2.0])
    assert 0.8 < inside[:, 0].mean() < 1.0 and 0.05 < inside[:, 0].std() < 0.3
    assert 0.03 < flow[:, :, :20].std() < 1.0  # noise where nothing moves
    beyond = flow[:, 0, 70, 66:70].mean() + flow[:, 0, 70, 26:30].mean()
    within = (6 - flow[:, 0, 70, 62:66]).mean() + (6 - flow[:, 0, 70, 30:34]).mean()
    assert beyond > within - 2 * (6 - flow[:, 0, 70, 44:52]).mean()  # edges lie further out, not in


@pytest.mark.parametrize("degrade, channels", [(degrade_depth, 1), (degrade_flow, 2)])
def test_degrading_follows_the_global_generator_takes_odd_sizes_and_is_quick(degrade, channels):
    exact = torch.randn(3, channels, 37, 51)
    torch.manual_seed(1)
    one = degrade(exact)
    assert one.shape == exact.shape and not torch.equal(one, degrade(exact))
    torch.manual_seed(1)
    assert torch.equal(one, degrade(exact))
    batch, spent = torch.randn(32, channels, 128, 96), []
    for _ in range(12):
        began = time.thread_time()
        degrade(batch)
        spent.append(time.thread_time() - began)
    assert min(spent) < 0.03  # s; some 5 ms on a quiet machine
