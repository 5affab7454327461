"""The encoder `two_stage`: blocks at stride 8, then at stride 16."""

from einops import rearrange
from torch import nn

from lib.model.mambapose.block import Block
from lib.model.mambapose.positions import Positions
from lib.model.mambapose.stem import ConvStem
from lib.model.stochastic_depth import rates_of_blocks


class TwoStage(nn.Module):
    """Tokens at stride 8 (B, H / 8, W / 8, C1) -> features at stride 8 and at stride 16 (B, H / 16, W / 16, C2).

    Args:
        size: a `lib.model.mambapose.sizes.Size`.
        drop_path: stochastic depth of the last block; earlier ones grow linearly from 0.
    """

    Stem = ConvStem

    def __init__(self, size, drop_path, recompute=True):
        super().__init__()
        first, second = size.channels
        rates = iter(rates_of_blocks(drop_path, sum(size.blocks)))
        self.stage1, self.stage2 = (
            nn.Sequential(*(Block(channels, next(rates), recompute) for _ in range(count)))
            for channels, count in zip(size.channels, size.blocks)
        )
        self.norm1, self.norm2 = (nn.LayerNorm(channels) for channels in size.channels)
        self.down = nn.Conv2d(first, second, kernel_size=3, stride=2, padding=1)
        self.positions = Positions(second)

    @staticmethod
    def channels(size):
        return size.channels

    def forward(self, x):
        fine = self.norm1(self.stage1(x))
        x = self.down(rearrange(fine, "b h w c -> b c h w"))
        x = self.positions(rearrange(x, "b c h w -> b h w c"))
        return fine, self.norm2(self.stage2(x))
