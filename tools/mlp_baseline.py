"""Train a baseline without time or joints: an MLP from one frame's keypoints to its pose.

Three hidden layers, trained on the frames of the same clips, with the same flips and targets, and scored by the same
protocol as `train.py` scores PoseMamba.

python tools/mlp_baseline.py --config configs/pose3d/PoseMamba_train_cmu.yaml
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lib.threads import spin_briefly

spin_briefly()  # before PyTorch is loaded

import numpy as np
import torch
from einops import rearrange
from torch import nn
from tqdm import tqdm

from lib.cli import Parser, run
from lib.config import load_config
from lib.data.datasets import open_dataset
from lib.engine.runtime import Runtime
from lib.engine.trainer import predict
from lib.model.facts import parameters_of
from lib.task.lifting import Lifting
from lib.task.losses import mpjpe


class FrameMLP(nn.Module):
    """MLP from keypoints (B, F, 17, 2) to poses (B, F, 17, 3), each frame on its own."""

    def __init__(self, joints, width, layers):
        super().__init__()
        self.joints = joints
        sizes = [2 * joints] + [width] * layers
        hidden = [m for a, b in zip(sizes, sizes[1:]) for m in (nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(width, 3 * joints))

    def forward(self, x):
        y = self.layers(rearrange(x, "b f j c -> (b f) (j c)"))
        return rearrange(y, "(b f) (j c) -> b f j c", b=len(x), c=3)


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="YAML of `train.py`")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=64, help="clips")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    options = parser.parse()
    config = load_config(options.config, [f"batch_size={options.batch}", "num_workers=0"])
    np.random.seed(config.seed)
    torch.manual_seed(config.seed)
    task = Lifting(config, open_dataset(config))
    model = FrameMLP(config.num_joints, options.width, options.layers)
    loader = task.loaders("train")
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=config.weight_decay)
    steps = options.epochs * len(loader)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.learning_rate, steps)
    with tqdm(total=steps, unit="step", disable=None) as bar:
        for _ in range(options.epochs):
            model.train()
            for batch in loader:
                loss = mpjpe(model(batch["keypoints"]), batch["pose"])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.update()
    scores = task.score(predict(model, task, Runtime(config)))
    parameters = parameters_of(model)
    print(f"MLP, {options.layers} x {options.width}, {parameters:,} parameters, {options.epochs} epochs:")
    print(f"P1 {scores.mpjpe:.1f} mm, P2 {scores.p_mpjpe:.1f} mm")


if __name__ == "__main__":
    run(main, when_memory_ends="lower --batch or --width")
