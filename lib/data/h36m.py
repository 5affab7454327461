"""The published place of `DataReaderH36M`, which lib/data/datasets/h36m.py defines."""

from lib.data.datasets.h36m import DataReaderH36M

__all__ = ["DataReaderH36M"]
