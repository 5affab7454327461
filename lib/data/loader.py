"""Batches of a data set: shuffled, shared out to processes, read ahead by threads, and with a position to go on from."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor

import torch


class Loader:
    """Batches of a data set, transformed, in a new order in every epoch; the last batch may be smaller.

    Threads read ahead: NumPy and files let them run beside training, and unlike processes they share its memory (a
    process of its own that has loaded PyTorch takes 500 MB). What is random is drawn by who iterates, so that it
    does not depend on them.

    Args:
        clips: a map-style data set: a list of numbers -> dict of tensors (B, ...); one with `of_epoch(seed)` gives
            those of an epoch, whose random draws follow from the epoch's seed and a clip's number.
        batch_size: clips of a batch, of all processes together.
        transforms: batch -> batch, in order.
        shuffle: in every epoch anew; else in the order of their numbers.
        workers: threads that read ahead.
        rank, world_size: this process of several, which gets its share of every batch.
    """

    def __init__(self, clips, batch_size, transforms=(), shuffle=True, workers=0, rank=0, world_size=1):
        self.clips, self.batch_size, self.transforms = clips, batch_size, tuple(transforms)
        self.shuffle, self.workers, self.rank, self.world_size = shuffle, workers, rank, world_size

    @property
    def unread(self):
        """What could not be read so far, {name: reason}."""
        return getattr(self.clips, "unread", {})

    def __len__(self):
        return -(-len(self.clips) // self.batch_size)

    def clips_of(self, number, batches=1):
        """Return how many clips the batches from this number on have, those of all processes together."""
        first, last = (min(edge * self.batch_size, len(self.clips)) for edge in (number, number + batches))
        return last - first

    def __iter__(self):
        return self.epoch(draw_seed() if self.shuffle else 0)

    def epoch(self, seed, first=0):
        """Yield the batches of an epoch from number `first` on; their order follows from the seed alone.

        A batch also has "index" (b,), the numbers of its clips, and "weight", the share of the whole batch's mean that
        a mean over these clips is: 1 for one process. A process without a clip in a small last batch gets one of
        weight 0.
        """
        shares = [self._share(batch) for batch in self._batches(seed)][first:]
        clips = self.clips.of_epoch(seed) if hasattr(self.clips, "of_epoch") else self.clips
        for (indices, weight), batch in zip(shares, self._read(clips, [indices for indices, _ in shares])):
            for transform in self.transforms:
                batch = transform(batch)
            yield batch | {"index": torch.tensor(indices), "weight": weight}

    def indices(self):
        """Return the numbers of this process's clips, in the order in which a loader that does not shuffle has them."""
        return [index for batch in self._batches(0) for index in self._own(batch)]

    def _batches(self, seed):
        """Return the numbers of the clips of every batch of an epoch, those of all processes together."""
        order = list(range(len(self.clips)))
        if self.shuffle:
            order = torch.randperm(len(order), generator=torch.Generator().manual_seed(seed)).tolist()
        return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]

    def _own(self, batch):
        return batch[self.rank :: self.world_size]

    def _share(self, batch):
        indices = self._own(batch)
        return (indices, len(indices) * self.world_size / len(batch)) if indices else (batch[:1], 0.0)

    def _read(self, clips, batches):
        if not self.workers:
            yield from map(clips.__getitem__, batches)
            return
        pool, coming = ThreadPoolExecutor(self.workers, "clips"), deque()
        try:
            for indices in batches:
                coming.append(pool.submit(clips.__getitem__, indices))
                if len(coming) > 2 * self.workers:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def draw_seed():
    """Return a seed of an epoch's order, from torch's global generator."""
    return int(torch.empty((), dtype=torch.int64).random_().item())
