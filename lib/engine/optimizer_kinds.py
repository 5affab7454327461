"""The optimisers that lib/engine/optimizers.py names."""

from itertools import chain

import torch

from lib.errors import UserError

_BLOCKS = ("STEblocks.", "TTEblocks.", "blocks_st.", "blocks_ts.", "layers.")


def adamw(parameters, config):
    return torch.optim.AdamW(parameters.values(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)


def muon(parameters, config):
    """Muon (K. Jordan, 2024; the step size of arXiv 2502.16982) for the matrices of blocks, AdamW for the rest."""
    if not hasattr(torch.optim, "Muon"):
        raise UserError(
            f"optimizer: muon needs PyTorch 2.9 or newer, here is {torch.__version__}; set optimizer: adamw"
        )
    matrices = {n: p for n, p in parameters.items() if p.ndim == 2 and n.startswith(_BLOCKS) and "A_logs" not in n}
    rest = {name: parameter for name, parameter in parameters.items() if name not in matrices}
    if not matrices:
        return adamw(rest, config)
    muon = torch.optim.Muon(
        matrices.values(), config.learning_rate, config.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    return Together(muon, adamw(rest, config)) if rest else Together(muon)


class Together:
    """Several optimisers that step as one; as much of the interface of one as training uses."""

    def __init__(self, *parts):
        self.parts = parts

    @property
    def param_groups(self):
        return list(chain.from_iterable(part.param_groups for part in self.parts))

    @property
    def state(self):
        return {parameter: state for part in self.parts for parameter, state in part.state.items()}

    def zero_grad(self):
        for part in self.parts:
            part.zero_grad()

    def step(self):
        for part in self.parts:
            part.step()

    def state_dict(self):
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state):
        """Take over a saved state; raise ValueError or KeyError if the state is that of other optimisers."""
        for part, own in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(own)
