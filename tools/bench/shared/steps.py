"""Training steps of S on random clips: forward, loss and backward of the published recipe, and AdamW.

As a program it makes one step for every line of its input, and prints how long it took:
python -m tools.bench.shared.steps BATCH FRAMES THREADS
"""

import sys
import time

import torch

from lib.body.skeleton import JOINTS
from lib.config import Config
from lib.engine.optimizers import OPTIMIZERS
from lib.memory import reuse_freed_memory
from lib.model.registry import build_model
from lib.task.losses import pose_loss


def recipe_step(config, batch, frames, device="cpu"):
    """Return a function that makes the next training step; the numbers of steps decide which branches are dropped."""
    torch.manual_seed(0)
    model = build_model(config).to(device)
    optimizer = OPTIMIZERS[config.optimizer](dict(model.named_parameters()), config)
    clips, poses = (
        torch.randn(batch, frames, len(JOINTS), channels, device=device) for channels in (config.in_chans, 3)
    )
    torch.manual_seed(0)

    def step():
        optimizer.zero_grad()
        pose_loss(model(clips), poses, config.loss_weights)[0].backward()
        optimizer.step()

    return step


def main():
    batch, frames, threads = map(int, sys.argv[1:])
    reuse_freed_memory()
    torch.set_num_threads(threads)
    step = recipe_step(Config(), batch, frames)
    for _ in sys.stdin:
        start = time.perf_counter()
        step()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
