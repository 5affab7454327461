"""Depth by transformers' Depth Anything, V1 (arXiv 2401.10891) and V2 (arXiv 2406.09414), relative and metric."""

import json
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.constants import ENDPOINT as _PAGE
from transformers import DepthAnythingForDepthEstimation
from transformers.utils import logging

from lib.errors import UserError, describe
from lib.files import require_folder
from lib.model.cues.estimator import Estimator, resized, to_tensor
from lib.model.cues.normalise import normalised
from lib.model.cues.registry import DEPTH_MODELS
from lib.model.cues.weights import fingerprint, require_reachable

_KIND = "depth_anything"
_PATCH = 14  # px
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of RGB from 0 to 1
_WIDTHS = {"small": 384, "base": 768, "large": 1024}  # of the encoder's features
_NEAREST = 0.1  # m, of metric depth


class DepthAnything(Estimator):
    """Estimator of normalised inverse depth.

    V1 and V2 of a size have the same parameters by name and shape: which of them a folder holds is not checked.

    Args:
        weights: folder with config.json and model.safetensors, or one that has it as a subfolder of the repository's
            name; the hub's by default, which are fetched once.
        name, device, batch, max_side: of `Estimator`.

    Raises:
        UserError: weights cannot be fetched, are missing, damaged or another network's.
    """

    cue, channels = "depth", ()

    def __init__(self, name, weights=None, device="cpu", batch=4, max_side=518):
        super().__init__(name, device, batch, max_side)
        model = _read(_local(Path(weights), name), name) if weights else _fetched(name)
        self.metric = model.config.depth_estimation_type == "metric"
        self.parameters = fingerprint(model)
        self.model = model.to(self.device).float().eval()
        self._mean, self._std = (torch.tensor(v, device=self.device)[:, None, None] for v in (_MEAN, _STD))

    def settings(self):
        return super().settings() | {"parameters": self.parameters}

    def working_size(self, width, height):
        return tuple(max(1, round(side / _PATCH)) * _PATCH for side in super().working_size(width, height))

    def _estimate(self, images):
        frame = images.shape[2], images.shape[1]
        inputs = to_tensor(images, self.working_size(*frame), self.device, "bicubic")
        depth = self.model(pixel_values=(inputs - self._mean) / self._std).predicted_depth
        inverse = depth.clamp(min=_NEAREST).reciprocal() if self.metric else depth
        return normalised(resized(inverse[:, None], frame)[:, 0])


def _local(path, name):
    """Return the folder of a model that a path means."""
    folder = DEPTH_MODELS[name].partition("/")[2]
    hint = f"; it has config.json and model.safetensors of {_PAGE}/{DEPTH_MODELS[name]}/tree/main"
    candidates = (require_folder(path, hint), path / folder, path / name)
    found = next((candidate for candidate in candidates if (candidate / "config.json").is_file()), None)
    if not found:
        raise UserError(f"{path}: holds no weights of {name}; the folder {folder} is needed there{hint}")
    return found


def _read(folder, name):
    """Return the model of a folder.

    Raises:
        UserError: it is damaged, incomplete, or none of `name`.
    """
    again = f"fetch {_PAGE}/{DEPTH_MODELS[name]} again"
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{folder / 'config.json'}: is damaged ({describe(error)}); {again}") from error
    if kind != _KIND:
        raise UserError(f"{folder}: is a model of type {kind!r}, {name} is of type {_KIND!r}; {again}")
    try:
        with _quiet():
            return _load(folder, name, local_files_only=True)
    except UserError:
        raise
    except Exception as error:  # transformers' and safetensors' have no common base
        raise UserError(f"{folder}: cannot be read as {name} ({describe(error)}); {again}") from error


def _fetched(name):
    """Return the hub's model, from its cache or its page."""
    repository = DEPTH_MODELS[name]
    try:
        with suppress(OSError), _quiet():  # it is not in the cache
            return _load(repository, name, local_files_only=True)
        require_reachable(f"{_PAGE}/{repository}")
        return _load(repository, name)
    except UserError:
        raise
    except Exception as error:  # of the network, the disk and of reading
        raise UserError(
            f"{name}: its weights cannot be fetched ({describe(error)}); download config.json and model.safetensors of "
            f"{_PAGE}/{repository}/tree/main into a folder and give that with --weights"
        ) from error


def _load(source, name, **how):
    """Return the model of a folder or repository by transformers' loader.

    Raises:
        UserError: parameters are missing, or it is of another size or kind of depth than its name says.
    """
    loaded: Any = DepthAnythingForDepthEstimation.from_pretrained(source, output_loading_info=True, **how)
    model, report = loaded
    if report["missing_keys"]:  # transformers leaves random weights there
        raise UserError(
            f"{source}: is no complete {name}: {sorted(report['missing_keys'])[0]} is missing; fetch it again"
        )
    found = model.config.backbone_config.hidden_size, model.config.depth_estimation_type
    needed = _WIDTHS[name.rpartition("_")[2]], "metric" if "metric" in name else "relative"
    if found != needed:
        raise UserError(
            f"{source}: is another model than {name}: it has {found[0]} features and tells {found[1]} depth, "
            f"{needed[0]} and {needed[1]} are needed; give other weights"
        )
    return model


@contextmanager
def _quiet():
    """Keep transformers from telling the progress of reading files, and in warnings what is told in one line here."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
