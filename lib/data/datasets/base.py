"""What the readers of prepared data sets share: rows of parts, by number, with their names and picture sizes."""

import numpy as np

_NAME_ROWS = {"camera_name": "camera", "action": "action", "source": "source"}  # key: field of `Runs`


class RowReader:
    """Every `sample_stride`th row of the parts "train" and "test".

    Args:
        parts: {"train": `Part`, "test": `Part`}.
        cameras: {name: (width, height)} in px, of every camera of the parts.
    """

    def __init__(self, parts, cameras, sample_stride):
        self.parts = parts
        self.sample_stride = sample_stride
        self._runs = {split: parts[split].runs.every(sample_stride) for split in ("train", "test")}
        self._sizes = {
            split: np.array([cameras[name] for name in runs.camera], np.float32).reshape(-1, 2)
            for split, runs in self._runs.items()
        }

    def rows(self, split, key, rows=None):
        """Entries of array `key` of "train" or "test": all that are read, or those of numbers `rows` (any shape)."""
        part, runs = self.parts[split], self._runs[split]
        if key in _NAME_ROWS:
            names = getattr(runs, _NAME_ROWS[key])
            return np.repeat(names, np.diff(runs.start)) if rows is None else names[runs.number(rows)]
        if rows is None:
            return part.arrays[key][:: self.sample_stride]
        return part.arrays[key][np.asarray(rows) * self.sample_stride]

    def count(self, split):
        """Rows of "train" or "test" that are read."""
        return self._runs[split].count

    def read_hw(self, split, rows=None):
        """Width and height float32 in px of each row's picture, (n,) or like `rows`."""
        runs, sizes = self._runs[split], self._sizes[split]
        sizes = np.repeat(sizes, np.diff(runs.start), axis=0) if rows is None else sizes[runs.number(rows)]
        return sizes[..., 0], sizes[..., 1]
