"""Sets of rendered people on disk: stores (lib/data/store.py) of crops, rendered by several processes."""

import hashlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache, partial
from itertools import islice
from multiprocessing import connection
from pathlib import Path

import cv2
import numpy as np
import torch

from lib.data.datasets.rendered import CAMERA, MADE_BY
from lib.data.motion_files import read_motion_files
from lib.data.store import Sequences, check_target, checksum, provenance_of, writing
from lib.data.synthetic import body
from lib.data.synthetic.crops import BLOCK, SHAPES, Crops
from lib.data.synthetic.pose_pairs import PosePairs
from lib.errors import UserError
from lib.files import PROJECT, require_file

SPLITS = ("train", "test")

MOTION = tuple(PROJECT / "data" / name for name in ("cmu17_large.npz", "accad17.npz"))
HELD_BACK = ("49", "55", "135", "accad_male1")  # subjects of test crops, as of configs/pose3d/PoseMamba_wild.yaml
_VARIED = {"train": 0.5, "test": 0.0}  # share of poses that are not as recorded
_NOT_DRAWING = ("rendered_set.py", "sheet.py")  # code on which the content of a set does not depend
_AHEAD = 3  # blocks for a process to render before the one that is written
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def render_set(folder, crops, size, seed, workers, progress):
    """Write a set of rendered people, unless it is there and up to date; one that was interrupted is continued.

    Args:
        folder: of the store.
        crops: {"train": number, "test": number}.
        size: (width, height) px.
        seed: of everything; the set does not depend on `workers`, the number of processes.
        progress: function (split, its crops, crops of it that are there already) -> context manager of an object with
            `update(more)`.

    Returns:
        Whether the set was written.

    Raises:
        UserError: the folder cannot be written or holds something else, or a process was killed.
    """
    folder = Path(folder)
    check_target(folder, MADE_BY)
    provenance = _provenance(crops, size, seed)
    if provenance_of(folder) == provenance:
        return False
    with writing(folder, provenance, {CAMERA: size}) as writer:
        for split in SPLITS:
            writer.split(split, _one_sequence(crops[split]))
        with _Renderers(size, seed, workers) as renderers:
            for split in SPLITS:
                blocks = partial(_blocks, renderers, split, crops[split], progress)
                writer.arrays(split, _layout(size), blocks, BLOCK)
    return True


def _layout(size):
    sides: dict = {"W": size[0], "H": size[1]}
    return {key: (dtype, tuple(sides.get(side, side) for side in shape)) for key, (dtype, shape) in SHAPES.items()}


def _one_sequence(crops):
    source, camera, action = (np.array([name]) for name in ("rendered", CAMERA, ""))
    return Sequences(source, camera, action, np.array([0, crops]))


def _provenance(crops, size, seed):
    code = hashlib.sha256()
    for path in sorted(path for path in Path(__file__).parent.glob("*.py") if path.name not in _NOT_DRAWING):
        code.update(path.read_bytes())
    return {
        "made_by": MADE_BY,
        "crops": crops,
        "size": list(size),
        "seed": seed,
        "held_back": list(HELD_BACK),
        "varied": _VARIED,
        "sha256": {path.name: checksum(require_file(path)) for path in (*MOTION, body.FILE)},
        "code_sha256": code.hexdigest(),
        "opencv": cv2.__version__,
    }


def _blocks(renderers, split, crops, progress, there):
    """Yield a split's crops after the first `there`, {key: (n, ...)}."""
    with progress(split, crops, there) as bar:
        for number, block in renderers.blocks(split, range(there // BLOCK, -(-crops // BLOCK))):
            more = min(BLOCK, crops - number * BLOCK)
            yield {key: array[:more] for key, array in block.items()}
            bar.update(more)


class _Renderers:
    """Processes that render blocks of crops."""

    def __init__(self, size, seed, workers):
        self._workers = workers
        # New processes, not forks: threads of libraries do not survive a fork.
        fresh = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(workers, fresh, _start, (size, seed))

    def __enter__(self):
        others = multiprocessing.active_children()
        with _quiet_start():
            for _ in range(self._workers):  # each call starts a process while none is idle
                self._pool.submit(_nothing)
        self._processes = [process for process in multiprocessing.active_children() if process not in others]
        return self

    def __exit__(self, kind, *error):
        if kind:
            for process in self._processes:
                process.terminate()
        self._pool.shutdown(cancel_futures=True)

    def blocks(self, split, numbers):
        """Yield (number, {key: (BLOCK, ...)}) of blocks, in order.

        Raises:
            UserError: a process was killed.
        """
        left, ahead = iter(numbers), deque()
        try:
            while True:
                for number in islice(left, self._workers * _AHEAD - len(ahead)):
                    ahead.append((number, self._pool.submit(_draw, split, number)))
                if not ahead:
                    return
                number, block = ahead.popleft()
                yield number, block.result()
        except BrokenProcessPool:
            raise UserError(
                "a process that renders was killed, as systems do when memory runs out; lower --workers"
            ) from None


@contextmanager
def _quiet_start():
    """Let processes that start in the block use one thread, and leave interruptions to this one, where they wait."""
    variables = {name: os.environ.get(name) for name in _THREADS}
    came: list = []
    handlers = {
        number: signal.signal(number, lambda *_: came.append(True)) for number in (signal.SIGINT, signal.SIGTERM)
    }
    mask = getattr(signal, "pthread_sigmask", lambda *_: None)  # Windows has none; new processes inherit it
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    mask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        mask(signal.SIG_UNBLOCK, {signal.SIGINT})
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for name, value in variables.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    if came:
        raise KeyboardInterrupt


def _nothing():
    """Do nothing."""


class _Process:
    """State of a process that renders: the motion, and the renderers of the splits that it was asked for."""

    def __init__(self, size, seed):
        self._size, self._seed, self._motion = size, seed, read_motion_files(MOTION)
        self.crops = cache(self._crops)

    def _crops(self, split):
        pairs = PosePairs.of_split(self._motion, split == "test", HELD_BACK, _VARIED[split])
        return Crops(pairs, self._size, (self._seed, SPLITS.index(split)))


_process: list = []  # the state of this process


def _start(size, seed):
    """Prepare a new process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _process.append(_Process(size, seed))


def _end_with_parent():
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _draw(split, number):
    return _process[0].crops(split).draw(number)
