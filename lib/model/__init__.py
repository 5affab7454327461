"""PoseMamba and what it is built from."""

from lib.model.posemamba import PoseMamba

__all__ = ["PoseMamba"]
