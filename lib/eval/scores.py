"""Result of a protocol: errors as numbers, as JSON and as the table that people read."""

import io
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


class Scores:
    """Scores of predictions; engine and records know no more of them than this."""

    @property
    def headline(self):
        """Return the number by which the best epoch is chosen: the lowest."""
        raise NotImplementedError

    @property
    def values(self):
        """Return {name: number} of the whole test split, for curves and records."""
        raise NotImplementedError

    @property
    def details(self):
        """Return {name: number} of parts of the test split, for the history."""
        return {}

    @property
    def extra(self):
        """Return {name: number} beside `values`, for the record of the best epoch."""
        return {}

    def summary(self):
        """Return the values as text, for a line of the log."""
        raise NotImplementedError

    def as_dict(self):
        """Return plain values for JSON."""
        raise NotImplementedError

    def table(self, name, others):
        """Return the scores as text, those of the model `name` beside those of others {name: Scores}."""
        raise NotImplementedError


class PoseScores(Scores):
    """Scores of 3D poses by one protocol, in mm.

    Has `mpjpe`, `p_mpjpe` and `per_action`, {name: errors with both}, which tables and plots show.
    """

    mpjpe: Any
    p_mpjpe: Any
    per_action: Any

    group, total = "action", "mean of actions"  # what `per_action` and the first two numbers are of

    @property
    def headline(self):
        return self.mpjpe

    @property
    def values(self):
        return {"mpjpe": self.mpjpe, "p_mpjpe": self.p_mpjpe}

    @property
    def details(self):
        return {
            f"{name} {action}": value
            for action, errors in self.per_action.items()
            for name, value in errors._asdict().items()
        }

    def summary(self):
        return f"P1 {self.mpjpe:.1f} mm  P2 {self.p_mpjpe:.1f} mm"

    def as_dict(self):
        return {
            **self.values,
            "per_action": {name: errors._asdict() for name, errors in self.per_action.items()},
        }

    def table(self, name, others):
        columns = {name: self, **{other.replace("_", " "): scores for other, scores in others.items()}}
        view = Table(title="errors in mm: P1 = MPJPE, P2 = P-MPJPE")
        view.add_column(self.group, no_wrap=True)
        for title in columns:
            view.add_column(f"{title}\nP1", justify="right")
            view.add_column("\nP2", justify="right")
        for action in self.per_action:
            view.add_row(escape(action), *_cells(scores.per_action[action] for scores in columns.values()))
        view.add_section()
        view.add_row(self.total, *_cells(columns.values()))
        return as_text(view)


def _cells(scores):
    return [f"{value:.1f}" for s in scores for value in (s.mpjpe, s.p_mpjpe)]


def as_text(view):
    """Return a rich table as text."""
    text = io.StringIO()
    Console(file=text, width=100).print(view)
    return text.getvalue().rstrip()
