"""The configuration of a run: the published YAML keys, checked, with `key=value` overrides."""

import difflib
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator

from lib.body.skeleton import JOINTS
from lib.data.datasets import AMASS, DATASETS, OWN_KEYS, SETS_2D
from lib.engine.optimizers import OPTIMIZERS
from lib.errors import UserError, first_invalid, unknown
from lib.model.registry import MODELS
from lib.yaml_files import parse_yaml, read_yaml

Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


class Shared(BaseModel):
    """The keys of a config file that all models share; defaults are the published recipe of the S model."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    # Run
    train_2d: bool = False
    no_eval: bool = False
    finetune: bool = False
    partial_train: list[str] | None = None  # parts of parameter names; only these are trained
    seed: int = Field(0, ge=0, lt=2**32)
    experiment: str = "PoseMamba"  # MLflow experiment

    # Training
    epochs: Count = 120
    checkpoint_frequency: Count = 30  # epochs between numbered checkpoints
    checkpoint_minutes: Weight = 10.0  # between checkpoints within an epoch
    log_every: Count = 10  # steps between looks at the loss, which wait for a GPU
    profile: bool = False  # write a trace of some steps and print the ten costliest operators
    batch_size: Count = 4
    dropout: Share = 0.0
    drop_path: Share = 0.2  # stochastic depth
    optimizer: str = "adamw"
    accumulate: Count = 1  # batches whose gradients make one step
    clip_grad: Weight = 0.0  # the largest norm of the gradient of a step; 0: any
    amp: str = "off"  # arithmetic of training and scoring: off (float32), bf16 or fp16; scan states stay float32
    compile: bool = False  # through torch.compile
    learning_rate: float = Field(2e-4, gt=0)
    weight_decay: Weight = 0.01
    lr_decay: float = Field(0.99, gt=0)  # after each epoch
    lr_drops: list[Count] = []  # epochs after which the learning rate is a tenth of what it was
    warmup_steps: int = Field(0, ge=0)  # the learning rate grows linearly over the first steps
    ema: Share = 0.0  # decay per step of an average of the weights, which is what is scored and kept; 0: none
    pretrain_3d_curriculum: int = Field(30, ge=0)  # train_2d: epochs on 3D clips alone, before 2D clips come in

    # Model
    backbone: str = "PoseMamba"
    maxlen: Count = 243  # frames; the longest clip of the model
    dim_feat: Count = 64
    mlp_ratio: float = Field(2, gt=0)
    depth: Count = 10
    att_fuse: bool = True  # DSTformer weighs its streams; published configs of PoseMamba carry the key too

    # Data
    dataset: str = "h36m"  # how dt_file is laid out and scored
    middle_frame: bool = False  # 3dhp: score one clip per valid frame, by its middle frame
    data_root: str = "data/motion3d/MB3D_f243s81"  # folder of clips already cut, used if there
    subset_list: list[str] = ["H36M-SH"]
    dt_root: str = "data/motion3d"
    dt_file: str = "h36m_sh_conf_cam_source_final.pkl"
    motion_files: list[str] = ["cmu17_large.npz", "accad17.npz"]  # views: in dt_root
    held_back: list[str] = []  # views: subjects that are scored and not trained on
    detections: str = ""  # coco: file of detected boxes in dt_root that are scored; "": annotated boxes
    clip_len: Count = 243  # frames
    data_stride: Count = 81  # frames between the starts of training clips
    rootrel: bool = True
    sample_stride: Count = 1
    num_joints: Count = 17
    no_conf: bool = True
    gt_2d: bool = False
    amass_file: str = "amass.store"  # in dt_root; subset AMASS, where data_root has no clips of it
    data_root_2d: str = "data/motion2d"
    subset_list_2d: list[str] = list(SETS_2D)  # what train_2d trains on
    num_workers: int = Field(1, ge=0)  # threads that read training clips ahead

    # Loss
    lambda_3d: Weight = 1.0
    lambda_scale: Weight = 0.5
    lambda_3d_velocity: Weight = 20.0
    lambda_lv: Weight = 0.0
    lambda_lg: Weight = 0.0
    lambda_a: Weight = 0.0
    lambda_av: Weight = 0.0
    lambda_3dw: Weight = 0.0
    lambda_diff: Weight = 0.5

    # Augmentation
    synthetic: bool = False  # train on true 2D positions in place of detections
    flip: bool = True  # mirror half of the training clips
    flip_test: bool | None = None  # average with the mirror image when scoring; None: as flip
    mask_ratio: Share = 0.0  # of joints, 0 in the training input
    mask_T_ratio: Share = 0.0  # of frames, 0 in the training input
    noise: bool = False  # errors of a detector on true 2D positions
    noise_path: str = "configs/noise/detections.yaml"

    @field_validator("amp", mode="before")
    @classmethod
    def _off_is_a_word(cls, value):
        return "off" if value is False else value  # YAML 1.1 reads `off` as False

    @property
    def loss_weights(self):
        """Return {key: weight} of the terms of `lib.task.losses.LOSS_TERMS`."""
        return {key: getattr(self, key) for key in type(self).model_fields if key.startswith("lambda_")}

    @property
    def averages_flips(self):
        return self.flip if self.flip_test is None else self.flip_test

    @property
    def in_chans(self):
        return 2 if self.no_conf else 3


_KEYS_OF_MODELS: Any = {name: (key.type, key.default) for entry in MODELS.values() for name, key in entry.keys.items()}

Config = create_model(
    "Config",
    __base__=Shared,
    __doc__="All keys of a config file, those of each model of the registry too.",
    **_KEYS_OF_MODELS,
)


_CHOICES = {
    "backbone": MODELS,
    "dataset": DATASETS,
    "optimizer": OPTIMIZERS,
    "amp": ("off", "bf16", "fp16"),
    **{name: key.choices for entry in MODELS.values() for name, key in entry.keys.items() if key.choices},
}


def load_config(path=None, overrides=(), base=None, base_origin=None):
    """Return the config of a YAML file, or of the dict `base`, with overrides on top.

    Args:
        path: YAML file, or None.
        overrides: "key=value" strings; values are read as YAML.
        base: keys to start from; a file's keys and overrides go on top.
        base_origin: where they come from, for messages.

    Raises:
        UserError: the file is missing or not YAML, a key is unknown (names the nearest right one), a
            value has the wrong type or range, or keys contradict each other.
    """
    values = dict(base or {})
    origin = dict.fromkeys(values, base_origin)
    if path is not None:
        given = read_yaml(path)
        if not isinstance(given, dict) or not all(isinstance(key, str) for key in given):
            raise UserError(f"{path}: expected lines of `key: value`")
        values |= given
        origin |= dict.fromkeys(given, str(path))
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise UserError(f"{override!r}: expected key=value")
        try:
            values[key] = parse_yaml(text)
        except (yaml.YAMLError, ValueError, TypeError) as error:
            raise UserError(f"{override!r}: the value is not YAML") from error
        origin[key] = "command line"
    return validate(values, origin)


def validate(values, origin=None):
    """Return the `Config` of a dict; `origin` says for each key where it was given, for the message."""
    try:
        config = Config(**values)
    except ValidationError as error:
        (key, *_), problem = first_invalid(error, Config.model_fields)
        value = f"{values[key]!r}: " if key in Config.model_fields else ""
        raise UserError(_where(key, origin) + value + problem) from error
    for key, known in _CHOICES.items():
        value = getattr(config, key)
        if value not in known:
            raise UserError(_where(key, origin) + unknown(value, known))
    if config.num_joints != len(JOINTS):
        raise UserError(f"{_where('num_joints', origin)}{config.num_joints}: the data have {len(JOINTS)} joints")
    if config.clip_len > config.maxlen:
        raise UserError(f"{_where('clip_len', origin)}{config.clip_len} frames is longer than maxlen, {config.maxlen}")
    _check_dataset(config, origin)
    _check_subsets(config, origin)
    if not config.synthetic and AMASS in config.subset_list:
        raise UserError(f"{_where('subset_list', origin)}{AMASS} has no 2D detections; set synthetic: True")
    if config.noise and not (config.synthetic or config.gt_2d):
        raise UserError(f"{_where('noise', origin)}detections have errors of their own; set synthetic: True")
    if config.train_2d:
        _check_2d(config, origin)
    if not any(config.loss_weights.values()):
        raise UserError(f"{_where('lambda_3d', origin)}all loss weights are 0; set at least one")
    return config


def _check_dataset(config, origin):
    entry = DATASETS[config.dataset]
    for key, needed in entry.fixed.items():
        if getattr(config, key) != needed:
            raise UserError(
                f"{_where(key, origin)}dataset {config.dataset} has root-relative poses in m; set {key}: {needed}"
            )
    for key in entry.unused:
        if getattr(config, key) != Config.model_fields[key].default:
            raise UserError(f"{_where(key, origin)}has no effect on dataset {config.dataset}; leave it out")
    for key, owners in OWN_KEYS.items():
        if config.dataset not in owners and getattr(config, key) != Config.model_fields[key].default:
            raise UserError(f"{_where(key, origin)}is for dataset: {' or '.join(owners)}")


def _check_subsets(config, origin):
    """Check `subset_list`: names are AMASS, folders of `data_root`, and where there are no such folders anything else, for `dt_file`."""
    where = _where("subset_list", origin)
    if not config.subset_list:
        raise UserError(f"{where}is empty; name {AMASS}, folders of data_root, or H36M-SH for dt_file")
    for number, name in enumerate(config.subset_list):
        if name in config.subset_list[:number]:
            raise UserError(f"{where}{name!r} is given twice")
        near = difflib.get_close_matches(name.upper(), [AMASS], cutoff=0.75)
        if near and name != AMASS and not (Path(config.data_root) / name).is_dir():
            raise UserError(f"{where}{name!r} is unknown (did you mean {AMASS!r}?)")


def _check_2d(config, origin):
    if config.no_conf:
        raise UserError(
            f"{_where('no_conf', origin)}train_2d: only confidence tells what is not seen; set no_conf: False"
        )
    if config.pretrain_3d_curriculum >= config.epochs:
        raise UserError(
            f"{_where('pretrain_3d_curriculum', origin)}2D clips would come in after epoch "
            f"{config.pretrain_3d_curriculum} of {config.epochs}; set one of the two"
        )
    if not config.subset_list_2d:
        raise UserError(f"{_where('subset_list_2d', origin)}is empty; there are {', '.join(SETS_2D)}")
    for number, name in enumerate(config.subset_list_2d):
        if name not in SETS_2D:
            raise UserError(_where("subset_list_2d", origin) + unknown(name, SETS_2D))
        if name in config.subset_list_2d[:number]:
            raise UserError(f"{_where('subset_list_2d', origin)}{name!r} is given twice")


def to_yaml(config):
    """Return the text of a config file that gives this config."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False)


def _where(key, origin):
    source = (origin or {}).get(key)
    return f"{source}: {key}: " if source else f"{key}: "
