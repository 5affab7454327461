"""The MLP of a block, which PoseMamba, MambaPose and the networks they are compared with share."""

from torch import nn


class Mlp(nn.Module):
    """Two linear layers with an activation between them, over the last axis; parameters are named as timm's.

    Args:
        drop: dropout after either layer.
    """

    def __init__(self, dim, hidden, drop=0.0, act_layer=nn.GELU):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = act_layer()
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x):
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))
