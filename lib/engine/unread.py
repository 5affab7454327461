"""Saying which files of a data set could not be read."""

import logging

_NAMED = 3

log = logging.getLogger(__name__)


def say_unread(loader, runtime, consequence):
    """Say how many files of a `Loader` could not be read in any process so far, which, and what follows; all call it."""
    unread = {name: reason for own in runtime.gathered(loader.unread) for name, reason in own.items()}
    if unread:
        first = sorted(unread.items())[:_NAMED]
        more = ", ..." if len(unread) > len(first) else ""
        log.warning(
            "%d %s cannot be read (%s%s): %s",
            len(unread), "image" if len(unread) == 1 else "images",
            ", ".join(f"{name}: {reason}" for name, reason in first), more, consequence,
        )  # fmt: skip
