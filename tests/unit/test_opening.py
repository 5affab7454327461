"""Opening a trained model: which of the file, its record, a config file and overrides decides."""

import pytest
import torch

from lib.body.skeleton import flip
from lib.config import load_config, to_yaml
from lib.data.transforms import flip_half, lifting_transforms
from lib.model.opening import open_model
from lib.model.registry import build_model
from lib.video.lift.lifter import open_lifter

SIZE = ["maxlen=9", "clip_len=9", "dim_feat=16", "depth=1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint that records scan v2, a config file of the same size with another order, and an input."""
    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    config = load_config(overrides=[*SIZE, "scan=v2"])
    model = build_model(config).eval()
    for parameter in model.parameters():  # the head begins at 0, and so would all poses be alike
        torch.nn.init.normal_(parameter, std=0.2)
    torch.save({"model_pos": model.state_dict(), "config": config.model_dump()}, folder / "best_epoch.bin")
    (folder / "other.yaml").write_text(to_yaml(load_config(overrides=[*SIZE, "scan=v2_fs_bt", "flip=False"])))
    return folder / "best_epoch.bin", folder / "other.yaml", torch.randn(2, 9, 17, 2)


@torch.no_grad()
def poses(path, x, *arguments):
    return open_model(path, *arguments).model(x)


def test_the_recorded_scan_order_wins_over_a_config_files(trained):
    path, other, x = trained
    as_trained = poses(path, x)
    assert torch.equal(poses(path, x, other), as_trained)
    opened = open_lifter(path, config=other, device="cpu").opened  # as vis.py --config does
    assert (opened.config.scan, opened.config.flip) == ("v2", False)
    assert torch.equal(opened.model(x), as_trained)
    assert not torch.allclose(poses(path, x, None, ["scan=v2_fs_bt"]), as_trained, atol=1e-3)


def test_flip_test_decides_alone_on_averaging_with_the_mirror_image(trained):
    path, _, x = trained
    plain = poses(path, x)
    with torch.no_grad():
        averaged = (plain + flip(open_model(path).model(flip(x)))) / 2
    assert not torch.allclose(plain, averaged, atol=1e-3)
    for overrides, expected in [
        (["flip=True"], averaged),
        (["flip=False"], plain),
        (["flip=True", "flip_test=False"], plain),
        (["flip=False", "flip_test=True"], averaged),
    ]:
        torch.testing.assert_close(open_model(path, overrides=overrides)(x), expected)


def test_flip_decides_alone_on_mirrored_training_clips():
    for overrides, mirrors in [(["flip=True", "flip_test=False"], True), (["flip=False", "flip_test=True"], False)]:
        assert (flip_half in lifting_transforms(load_config(overrides=overrides))) == mirrors
