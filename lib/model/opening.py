"""Opening a trained model: the one place where a file, its recorded config and other keys become a model.

A key is, in this order, what an override says, what the shapes of the parameters tell, what the file records of its
model (such as the scan order, which no shape tells), what a given config file says, what the file records else.
"""

from typing import NamedTuple

import torch
from torch import nn

from lib.config import Config, load_config
from lib.errors import UserError
from lib.model.inference import infer
from lib.model.registry import MODELS, build_model, model_of, model_with
from lib.model.weights import Checkpoint, read_weights
from lib.yaml_files import read_yaml


class Opened(NamedTuple):
    """A trained model in evaluation mode; called with x (B, F, J, C) it averages over the mirror image, if `flip_test`.

    A model that takes clips of one length alone says so by its attribute `frames`: shorter ones stand still in the end.
    """

    model: nn.Module
    config: Config
    checkpoint: Checkpoint

    def __call__(self, x):
        frames = x.shape[1]
        missing = getattr(self.model, "frames", 0) - frames
        if missing > 0:
            x = torch.cat([x, x[:, -1:].expand(-1, missing, -1, -1)], dim=1)
        return infer(self.model, x, self.config)[:, :frames]


def open_model(path, config_file=None, overrides=(), device="cpu"):
    """Return the `Opened` model of a checkpoint or safetensors file.

    Args:
        config_file: YAML file for what the file does not record, or to replace it; the model's own keys stay.
        overrides: "key=value" strings.

    Raises:
        UserError: a file is missing or damaged, a key is wrong, or the config is of another model.
    """
    checkpoint = read_weights(path)
    config = config_of(checkpoint, config_file, overrides)
    model = model_from(checkpoint, config, device)
    told = {"backbone", *MODELS[config.backbone].keys, *size_of(checkpoint, config.backbone)}
    model.recorded = {**checkpoint.config, **config.model_dump(include=told)}
    return Opened(model.eval(), config, checkpoint)


def model_from(checkpoint, config, device="cpu", without=()):
    """Return the model of a config with a `Checkpoint`'s parameters, or the network of an exported file.

    without: prefixes of parameters that are begun anew; see `Checkpoint.load_into`.
    """
    if checkpoint.network is not None:
        return checkpoint.network
    model = build_model(config).to(device)
    checkpoint.load_into(model, without)
    return model


def config_of(checkpoint, config_file=None, overrides=()):
    """Return the `Config` that a `Checkpoint`'s model is built and run with; see `open_model`."""
    recorded = checkpoint.config
    backbone = _backbone(checkpoint, config_file, overrides)
    size = size_of(checkpoint, backbone)
    whole_clips = {"clip_len": size["maxlen"]} if "maxlen" in size else {}
    base = {"backbone": backbone, **whole_clips, **size, **({} if config_file else recorded)}
    config = load_config(config_file, overrides, base, checkpoint.path)
    refuse_another_size(config, checkpoint)
    given = {override.partition("=")[0] for override in overrides}
    own = {key: recorded[key] for key in MODELS[config.backbone].keys if key in recorded and key not in given}
    return config.model_copy(update=own)


def _backbone(checkpoint, config_file, overrides):
    """Return the model that is named last by the record, the config file and the overrides; if none is, by parameters."""
    named = [checkpoint.config, (read_yaml(config_file) if config_file else None) or {}]
    named += [{"backbone": value} for key, _, value in (o.partition("=") for o in overrides) if key == "backbone"]
    names = [given["backbone"] for given in named if "backbone" in given]
    return names[-1] if names else model_with(checkpoint.model) or "PoseMamba"


def size_of(checkpoint, backbone):
    """Return the config keys that the shapes of a `Checkpoint`'s parameters tell.

    Raises:
        UserError: they are no parameters of that model; names the first that is missing.
    """
    if checkpoint.network is not None:
        return checkpoint.network.size
    try:
        return model_of(backbone).config_of(checkpoint.model)
    except (KeyError, ValueError, IndexError) as error:
        lacks = f" (it lacks {error.args[0]!r})" if isinstance(error, KeyError) else ""
        found = model_with(checkpoint.model)
        other = f"; it is one of backbone: {found}" if found not in (None, backbone) else ""
        raise UserError(f"{checkpoint.path}: is not a {backbone} checkpoint{lacks}{other}") from error


def parts_to_begin(config, checkpoint):
    """Return {key: prefix of parameters} of the parts that fine-tuning begins anew, since the file has none.

    A model's module may say in `GROWS` {key: (value of the file, value of the config, prefix)} which.
    """
    size = size_of(checkpoint, config.backbone)
    grows = getattr(model_of(config.backbone), "GROWS", {})
    return {key: part for key, (*change, part) in grows.items() if [size[key], getattr(config, key)] == change}


def refuse_another_size(config, checkpoint, but=()):
    """Raise UserError if the config sets a key of the model's size to another value than the parameters have.

    but: keys that may differ.
    """
    size = size_of(checkpoint, config.backbone)
    given = config.model_fields_set - set(but)
    wrong = [key for key, value in size.items() if key in given and getattr(config, key) != value]
    if "mlp_ratio" in wrong and int(config.dim_feat * config.mlp_ratio) == int(size["dim_feat"] * size["mlp_ratio"]):
        wrong.remove("mlp_ratio")  # the width of the MLP is rounded down
    if wrong:
        wanted, found = (", ".join(f"{key} {values[key]}" for key in wrong) for values in (config.model_dump(), size))
        remedy = " ".join(f"{key}={size[key]}" for key in wrong)
        raise UserError(
            f"the config is for another model size ({wanted}) than the checkpoint {checkpoint.path} ({found}); "
            f"set {remedy}"
        )
