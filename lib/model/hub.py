"""Models as folders and as repositories of the Hugging Face Hub: `model.safetensors`, `config.json` and a card.

`config.json` has the config keys of this project (configs/README.md), `backbone` among them; the same stand in the
metadata of the safetensors file, so that it is enough by itself.
"""

import json
from pathlib import Path

from huggingface_hub import ModelHubMixin, hf_hub_download
from torch import nn

from lib.errors import UserError
from lib.export.safetensors import write_weights
from lib.files import atomic_path, require_file
from lib.model.weights import CONFIG, Checkpoint

WEIGHTS = "model.safetensors"


class Pretrained(ModelHubMixin, nn.Module, library_name="posemamba", license="apache-2.0"):
    """Base of the models of the registry: `from_pretrained`, `save_pretrained`, `push_to_hub`.

    Attributes:
        recorded: config keys that the model is saved with; None: those that its parameters and arguments tell.
    """

    recorded: dict | None = None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **download):
        """Return a trained model in evaluation mode.

        Args:
            pretrained_model_name_or_path: a checkpoint or safetensors file, published or own; a folder that
                `save_pretrained` wrote; or the name of a repository of the hub.
            download: options of `huggingface_hub.hf_hub_download`, such as revision and token; and scan, or other keys
                of the model that a file does not record.

        Raises:
            UserError: there is no such file, or it is damaged or of another model.
        """
        from lib.model.opening import open_model
        from lib.model.registry import MODELS

        keys = MODELS[cls.__name__].keys
        overrides = [f"{key}={download.pop(key)}" for key in list(download) if key in keys]
        path = Path(pretrained_model_name_or_path)
        if path.is_dir():
            path = require_file(path / WEIGHTS, "; save_pretrained and tools/convert_checkpoint.py write such folders")
        elif not path.exists() and len(path.parts) == 2 and not path.suffix:
            hf_hub_download(str(path), CONFIG, **download)  # beside the weights, in the same folder of the cache
            path = Path(hf_hub_download(str(path), WEIGHTS, **download))
        opened = open_model(path, overrides=overrides)
        if opened.checkpoint.network is not None:
            raise UserError(f"{path}: is exported, for inference; open it by lib.model.open_model")
        if not isinstance(opened.model, cls):
            raise UserError(f"{path}: is a {opened.config.backbone}, not a {cls.__name__}")
        return opened.model

    def _save_pretrained(self, save_directory):
        write_folder(save_directory, self.state_dict(), recorded_of(self))


def recorded_of(model):
    """Return the config keys of a model, by `recorded`, or by its parameters and the arguments it was built with."""
    from lib.model.registry import MODELS, model_of

    if model.recorded is not None:
        return model.recorded
    name = type(model).__name__
    own = {key: value for key, value in (model._hub_mixin_config or {}).items() if _is_legal(MODELS[name], key, value)}
    return {"backbone": name, **own, **model_of(name).config_of(model.state_dict())}


def _is_legal(entry, key, value):
    """Return whether an argument of a model is, under the same name, one of its config keys, with a value of it."""
    if key not in entry.keys:
        return False
    choices = entry.keys[key].choices
    return value in choices if choices else isinstance(value, (int, float))


def write_folder(folder, parameters, config, epoch=0):
    """Write parameters {name: tensor} and config keys as `model.safetensors` and `config.json`.

    Raises:
        UserError: the folder cannot be written.
    """
    folder = Path(folder)
    write_weights(folder / WEIGHTS, Checkpoint(str(folder), parameters, epoch, config=config))
    with atomic_path(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
