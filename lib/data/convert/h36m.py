"""Conversion of a pickle in Human3.6M's preprocessed layout to a store."""

from pathlib import Path

from lib.data.datasets.h36m import CAMERA_SIZES, HINT, MADE_BY, STORED, open_pickle
from lib.data.store import INDEX, SUFFIX, blocks_of, check_target, checksum, provenance_of, writing
from lib.files import require_file


def convert(source, target=None, progress=lambda arrays: arrays):
    """Write the store of a pickle in Human3.6M's layout, unless it is there and up to date.

    Arrays are stored as float32, `2.5d_factor` as float64.

    Args:
        source: the pickle.
        target: folder of the store; beside the pickle by default.
        progress: wraps the list of (split, key) to write, such as `tqdm`.

    Returns:
        The store's folder, and whether it was written.

    Raises:
        UserError: the pickle is missing, unreadable or not in this layout (names key and frame), or the store cannot
            be written; an earlier store is untouched then.
    """
    source = require_file(source, HINT.format("give --dt-root and --dt-file"))
    target = Path(target) if target else source.with_suffix(SUFFIX)
    check_target(target, MADE_BY)
    provenance = {
        "made_by": MADE_BY,
        "of": source.name,
        "bytes": source.stat().st_size,
        "sha256": checksum(source),
    }
    if provenance_of(target) == provenance:
        (target / INDEX).touch()  # newer than the pickle again, if that was copied
        return target, False
    splits = open_pickle(source)
    with writing(target, provenance, CAMERA_SIZES) as writer:
        for name, split in splits.items():
            writer.split(name, split.sequences)
        for name, key in progress([(name, key) for name, split in splits.items() for key in split.arrays]):
            dtype, shape = STORED[key]
            writer.array(name, key, dtype, shape, blocks_of(splits[name].arrays[key], shape))
    return target, True
