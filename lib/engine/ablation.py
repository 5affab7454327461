"""Entries of an ablation: trainings of one config that differ in some keys and in the seed, and their figures."""

import statistics
from typing import NamedTuple

from lib.errors import UserError


class Entry(NamedTuple):
    """Training of an ablation.

    keys: {key: text} that it sets in the config; seed: None for the config's own.
    """

    keys: dict
    seed: int | None = None

    @property
    def variation(self):
        """The name of what is trained, whatever the seed."""
        return "-".join(self.keys.values())

    @property
    def name(self):
        return self.variation if self.seed is None else f"{self.variation}-seed{self.seed}"

    @property
    def overrides(self):
        seed = [] if self.seed is None else [f"seed={self.seed}"]
        return [*(f"{key}={value}" for key, value in self.keys.items()), *seed]


def variation(text):
    """Return the {key: text} of key=value, or of several with commas between them.

    Raises:
        ValueError: it is something else.
    """
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(key and value for key, _, value in pairs):
        raise ValueError(text)
    return {key: value for key, _, value in pairs}


def entries_of(variations, seeds=()):
    """Return the `Entry`s of variations {key: text}, each once for every seed.

    Raises:
        UserError: two have the same name, or a name that no folder can have.
    """
    entries = [Entry(keys, seed) for keys in variations for seed in (seeds or [None])]
    names = [entry.name for entry in entries]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--entries: two trainings are called {name}; each needs other values")
        if "/" in name or name.startswith("."):
            raise UserError(f"--entries: {name}: no folder can have this name; choose values without /")
    return entries


def summary(rows, scores):
    """Return {variation: {name: (mean, standard deviation), or None}} of the finished rows; deviation 0 for one seed.

    scores: names of the figures of a row.
    """
    found = {}
    for variation in dict.fromkeys(row["variation"] for row in rows):
        same = [row for row in rows if row["variation"] == variation and row["state"] == "finished"]
        found[variation] = {name: _spread([row[name] for row in same]) for name in (*scores, "seconds")}
    return found


def _spread(values):
    values = [value for value in values if value is not None]
    return (statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0) if values else None
