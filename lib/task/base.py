"""Base class of tasks, which a network is trained and scored for: batches, their loss, predictions and their scores."""

import numpy as np

from lib.errors import TrainingStopped


class Task:
    """One kind of learning; engine and loss curves know no other.

    name: what its loss is called in records, "" for the one that is scored; first: the first epoch (from 1) that has it.
    """

    name = ""
    first = 1
    curves: tuple = ({}, "")  # {name of a score: its label in the chart of epochs}, and their unit
    chosen_by = ""  # name of the score that chooses the best epoch, for the log

    def loaders(self, split, **sharing):
        """Return the `Loader` of "train" or "test"; sharing: `rank` and `world_size`.

        Raises:
            UserError: data are missing or damaged.
        """
        raise NotImplementedError

    def loss(self, model, batch):
        """Return the loss of a batch, a scalar, and {term: unweighted value}; tensors are on the model's device."""
        raise NotImplementedError

    def predict(self, model, batch):
        """Return what is scored of a test batch, a tensor (b, ...)."""
        raise NotImplementedError

    def score(self, predictions):
        """Return the `lib.eval.scores.Scores` of the predictions of the whole test split (n, ...), NumPy.

        Raises:
            TrainingStopped: a prediction is not finite.
        """
        if not np.isfinite(predictions).all():
            raise TrainingStopped("predictions are not finite: the network diverged; lower learning_rate")
        return self.evaluate(predictions)

    def evaluate(self, predictions):
        """Return the `Scores` of finite predictions; see `score`."""
        raise NotImplementedError

    def baselines(self):
        """Return {name: `Scores`} of what needs no network."""
        return {}

    def draw(self, predictions, scores, others, folder):
        """Draw the predictions and their scores, beside those of others {name: `Scores`}; return the files' paths."""
        return []
