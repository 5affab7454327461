"""Flow by torchvision's RAFT (Teed and Deng, ECCV 2020, arXiv 2003.12039)."""

from pathlib import Path

import torch
from torchvision.models import get_model, get_model_weights

from lib.errors import UserError, describe
from lib.files import require_file
from lib.model.cues.estimator import Estimator, back_to, padded, padded_side, to_tensor
from lib.model.cues.weights import fingerprint, require_reachable
from lib.model.weights import Checkpoint, read_weights

_MULTIPLE, _LEAST = 8, 128  # px: features are at 1/8, and their coarsest level of 4 needs 2 px
_CORRELATION = 4 * (1 + 1 / 4 + 1 / 16 + 1 / 64)  # bytes for two px of features and their coarser levels


class RAFT(Estimator):
    """Estimator of flow by `raft_small` or `raft_large`.

    Memory is that of the correlation volume of a pair, quadratic in the image's area: 89 MB at 512 x 512 px.

    Args:
        weights: a .pth or .safetensors file with the parameters, or the folder it is in; torchvision's default by
            default, which is fetched once.
        updates: iterations of the recurrent update.
        name, device, batch, max_side: of `Estimator`.

    Raises:
        UserError: weights cannot be fetched, are missing, damaged or another network's.
    """

    cue, channels, ahead = "flow", (2,), 1

    def __init__(self, name, weights=None, device="cpu", batch=4, max_side=512, updates=12):
        super().__init__(name, device, batch, max_side)
        self.updates = updates
        model = get_model(name, weights=None)
        published = get_model_weights(name).DEFAULT
        file = Path(published.url).name
        state = read_weights(_local(Path(weights), name, file)) if weights else _fetched(published, name, file)
        try:
            state.load_into(model)
        except UserError as error:
            raise UserError(f"{error}: it is no {name} of torchvision, such as {file} ({published.url})") from error
        self.parameters = fingerprint(model)
        self.model = model.to(self.device).eval()

    def settings(self):
        return super().settings() | {"updates": self.updates, "parameters": self.parameters}

    def describe(self, width, height):
        sides = [padded_side(side, _MULTIPLE, _LEAST) for side in self.working_size(width, height)]
        volume = (sides[0] * sides[1] / _MULTIPLE**2) ** 2 * _CORRELATION
        return (
            f"{super().describe(width, height)}, correlations take {volume / 1e6:.0f} MB a pair, {self.batch} at once"
        )

    def _estimate(self, images):
        frame = images.shape[2], images.shape[1]
        size = self.working_size(*frame)
        tensors = padded(to_tensor(images, size, self.device) * 2 - 1, _MULTIPLE, _LEAST)
        flow = self.model(tensors[:-1], tensors[1:], num_flow_updates=self.updates)[-1]
        return back_to(flow, size, frame)


def _local(path, name, file):
    """Return the file of weights that a path of a file or folder means."""
    if not path.is_dir():
        return require_file(path)
    names = (file, f"{name}.pth", f"{name}.safetensors")
    found = next((path / each for each in names if (path / each).is_file()), None)
    if not found:
        raise UserError(f"{path}: holds no weights of {name}; one of {', '.join(names)} is needed there")
    return found


def _fetched(published, name, file):
    """Return torchvision's weights as a `Checkpoint`, from its cache or its page."""
    try:
        if not Path(torch.hub.get_dir(), "checkpoints", file).is_file():
            require_reachable(published.url)
        return Checkpoint(path=file, model=published.get_state_dict(progress=True, check_hash=True))
    except Exception as error:  # of the network, the disk and of reading a damaged file
        raise UserError(
            f"{name}: its weights cannot be fetched ({describe(error)}); download {published.url} "
            "and give the file or its folder with --weights"
        ) from error
