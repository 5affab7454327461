"""Config files: published keys, overrides, and one-line errors that name the key."""

import pytest
import yaml
from conftest import ROOT

from lib.config import Config, load_config, to_yaml
from lib.errors import UserError

CONFIGS = ROOT / "configs" / "pose3d"

PUBLISHED_KEYS = """
    train_2d no_eval finetune partial_train epochs checkpoint_frequency batch_size dropout learning_rate
    weight_decay lr_decay backbone maxlen dim_feat mlp_ratio depth att_fuse data_root subset_list dt_file
    clip_len data_stride rootrel sample_stride num_joints no_conf gt_2d lambda_3d lambda_scale
    lambda_3d_velocity lambda_lv lambda_lg lambda_a lambda_av lambda_3dw lambda_diff synthetic flip
    mask_ratio mask_T_ratio noise
""".split()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_is_valid(path):
    config = load_config(path)
    assert load_config(base=yaml.safe_load(to_yaml(config))) == config


@pytest.mark.parametrize("size, dim, depth", [("S", 64, 10), ("B", 128, 10), ("L", 128, 20)])
def test_human36m_configs_are_the_published_recipe(size, dim, depth):
    path = CONFIGS / f"PoseMamba_train_h36m_{size}.yaml"
    assert set(PUBLISHED_KEYS) <= set(yaml.safe_load(path.read_text()))
    config = load_config(path)
    assert (config.dim_feat, config.depth) == (dim, depth)
    assert (config.epochs, config.batch_size, config.learning_rate, config.lr_decay) == (120, 4, 2e-4, 0.99)
    assert (config.clip_len, config.data_stride, config.weight_decay) == (243, 81, 0.01)
    weights = {name: weight for name, weight in config.loss_weights.items() if weight}
    assert weights == {"lambda_3d": 1, "lambda_scale": 0.5, "lambda_3d_velocity": 20, "lambda_diff": 0.5}


def test_test_config_leaves_the_size_to_the_checkpoint():
    config = load_config(CONFIGS / "PoseMamba_test_h36m.yaml")
    assert (config.epochs, config.batch_size) == (1, 2)
    assert not {"dim_feat", "depth", "maxlen", "clip_len", "mlp_ratio"} & config.model_fields_set


def test_numbers_and_overrides_as_people_write_them(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("learning_rate: 2e-4\nmlp_ratio: 2\npartial_train: [head]\nmask_ratio: 0.\n")
    config = load_config(path, ["learning_rate=1e-3", "flip=False", "subset_list=[A, B]"])
    assert (config.learning_rate, config.flip, config.subset_list) == (1e-3, False, ["A", "B"])


@pytest.mark.parametrize(
    "text, message",
    [
        ("epoch: 3", "c.yaml: epoch: unknown key (did you mean 'epochs'?)"),
        ("epochs: many", "c.yaml: epochs: 'many': "),
        ("epochs: 2.5", "c.yaml: epochs: 2.5: "),
        ("epochs: true", "c.yaml: epochs: True: "),
        ("epochs: 0", "c.yaml: epochs: 0: "),
        ("flip: 1", "c.yaml: flip: 1: "),
        ("dropout: 1.5", "c.yaml: dropout: 1.5: "),
        ("learning_rate: -1", "c.yaml: learning_rate: -1: "),
        ("subset_list: H36M", "c.yaml: subset_list: 'H36M': "),
        ("scan: v2_fs_fb", "c.yaml: scan: 'v2_fs_fb' is unknown (did you mean 'v2_fs_"),
        ("backbone: MixSTE", "c.yaml: backbone: 'MixSTE' is unknown; there are PoseMamba"),
        ("train_2d: true", "no_conf: train_2d: only confidence tells what is not seen; set no_conf: False"),
        ("train_2d: true\nno_conf: false\nepochs: 9", "2D clips would come in after epoch 30 of 9"),
        ("train_2d: true\nno_conf: false\nsubset_list_2d: [PoseTrack]", "'PoseTrack' is unknown (did you mean 'PoseTrack18'?)"),
        ("train_2d: true\nno_conf: false\nsubset_list_2d: []", "c.yaml: subset_list_2d: is empty"),
        ("train_2d: true\nno_conf: false\nsubset_list_2d: [InstaVariety, InstaVariety]", "is given twice"),
        ("subset_list: [AMASS, H36M-SH]", "c.yaml: subset_list: AMASS has no 2D detections; set synthetic: True"),
        ("subset_list: []", "c.yaml: subset_list: is empty"),
        ("subset_list: [amass]", "c.yaml: subset_list: 'amass' is unknown (did you mean 'AMASS'?)"),
        ("subset_list: [AMAS, H36M-SH]", "c.yaml: subset_list: 'AMAS' is unknown (did you mean 'AMASS'?)"),
        ("subset_list: [H36M-SH, H36M-SH]", "c.yaml: subset_list: 'H36M-SH' is given twice"),
        ("noise: true", "c.yaml: noise: detections have errors of their own; set synthetic: True"),
        ("mask_ratio: 1", "c.yaml: mask_ratio: 1: "),
        ("mask_T_ratio: -0.1", "c.yaml: mask_T_ratio: -0.1: "),
        ("dataset: 3dhp\nsynthetic: true", "c.yaml: synthetic: dataset 3dhp has root-relative poses in m"),
        ("dataset: 3dhp\ntrain_2d: true\nno_conf: false", "c.yaml: train_2d: dataset 3dhp has root-relative poses in m"),
        ("clip_len: 300", "c.yaml: clip_len: 300 frames is longer than maxlen, 243"),
        ("lambda_3d: 0\nlambda_scale: 0\nlambda_3d_velocity: 0\nlambda_diff: 0", "c.yaml: lambda_3d: all loss weights are 0"),
        ("epochs: 1\nepochs: 2", "c.yaml: line 2: is not YAML (key 'epochs' is given twice)"),
        ("epochs: [1", "c.yaml: line "),
        ("- a\n- b", "c.yaml: expected lines of `key: value`"),
        ("1: 2", "c.yaml: expected lines of `key: value`"),
        ("", "c.yaml: expected lines of `key: value`"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_line_that_names_the_key(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_config(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_subset_may_be_any_folder_of_data_root(tmp_path):
    (tmp_path / "AMASS2").mkdir()
    assert load_config(overrides=[f"data_root={tmp_path}", "subset_list=[AMASS2]"]).subset_list == ["AMASS2"]
    with pytest.raises(UserError, match="did you mean 'AMASS'"):
        load_config(overrides=["data_root=nowhere", "subset_list=[AMASS2]"])


@pytest.mark.parametrize(
    "override, message",
    [
        ("epochs", "'epochs': expected key=value"),
        ("=3", "'=3': expected key=value"),
        ("epochs=[", "'epochs=[': the value is not YAML"),
        ("lerning_rate=1", "command line: lerning_rate: unknown key (did you mean 'learning_rate'?)"),
        ("batch_size=x", "command line: batch_size: 'x': "),
    ],
)
def test_a_wrong_override_is_named(override, message):
    with pytest.raises(UserError) as error:
        load_config(overrides=[override])
    assert message in str(error.value)


def test_a_missing_config_names_the_nearest_file():
    with pytest.raises(
        UserError, match="PoseMamba_train_h36m_S.yml: no such file .did you mean 'PoseMamba_train_h36m_S.yaml'"
    ):
        load_config(CONFIGS / "PoseMamba_train_h36m_S.yml")


def test_defaults_are_the_published_s_recipe():
    assert Config().model_dump(exclude={"data_root"}) == load_config(
        CONFIGS / "PoseMamba_train_h36m_S.yaml"
    ).model_dump(exclude={"data_root"})


def test_off_is_a_word_without_quotes(tmp_path):
    (tmp_path / "config.yaml").write_text("amp: off\n")
    assert load_config(tmp_path / "config.yaml").amp == load_config(None, ["amp=off"]).amp == "off"
