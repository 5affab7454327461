"""Measured parameters of a detector's errors: the content of configs/noise/blazepose.yaml, which explains the keys."""

from typing import Annotated

from pydantic import Field, model_validator

from lib.data.joint_tables import Strict, read_joint_table

STATES = ("seen", "hidden", "outside")  # visibility of a joint, by number; outside: of the image
GROUPS = {"trunk": (1, 4, 11, 14), "limbs": (2, 3, 5, 6, 12, 13, 15, 16), "head": (9, 10)}  # joints with similar errors

_Share = Annotated[float, Field(ge=0, le=1)]
_Length = Annotated[float, Field(ge=0)]
_Positive = Annotated[float, Field(gt=0)]
_Shares = Annotated[list[_Share], Field(min_length=2)]


class _ByState(Strict):
    seen: list[_Shares]
    hidden: list[_Shares]
    outside: list[_Shares]


class _Confidence(Strict):
    edges: list[_Length]
    ranks: _Shares
    memory: _Share
    trunk: _ByState
    limbs: _ByState
    head: _ByState

    @model_validator(mode="after")
    def _same_size(self):
        if self.ranks != sorted(self.ranks) or (self.ranks[0], self.ranks[-1]) != (0, 1):
            raise ValueError("ranks must ascend from 0 to 1")
        for group in GROUPS:
            for state in STATES:
                table = getattr(getattr(self, group), state)
                if [len(row) for row in table] != [len(self.ranks)] * (len(self.edges) + 1):
                    raise ValueError(
                        f"{group}: {state} must have {len(self.edges) + 1} rows of {len(self.ranks)}: one more than "
                        "edges, as many as ranks"
                    )
        return self


class _Groups(Strict):
    trunk: tuple[_Length, _Length, _Length]
    limbs: tuple[_Length, _Length, _Length]
    head: tuple[_Length, _Length, _Length]


class _Swaps(Strict):
    all: _Share
    legs: _Share
    arms: _Share


class _Joint(Strict):
    definition: tuple[float, float, float]
    error: tuple[_Length, _Length, _Length]
    spread: tuple[_Length, _Length, _Length]
    outliers: tuple[_Share, _Share, _Share]


class Parameters(Strict):
    """Errors of a measured detector."""

    correlation_time: _Positive
    parts: _Groups
    common: _Share
    outlier_size: tuple[_Positive, _Length]
    swaps: _Swaps
    confidence: _Confidence
    joints: dict[str, _Joint]


def read_parameters(path):
    """Read the `Parameters` of a YAML file.

    Raises:
        UserError: the file is missing, not YAML or not such a table; names the key.
    """
    return read_joint_table(path, Parameters)
