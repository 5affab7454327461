"""Errors that a user can cause or must act on: one line each, no traceback."""

import difflib


class UserError(Exception):
    """Bad input: the message names the file, key or argument and the way out."""

    exit_code = 2


class TrainingStopped(UserError):
    """Training cannot go on (a loss that is not finite); what was saved before is untouched."""

    exit_code = 1


def nearest(word, known):
    """ " (did you mean 'x'?)" for the most similar of `known`, or nothing."""
    matches = difflib.get_close_matches(str(word), [str(k) for k in known], n=1, cutoff=0.5)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def describe(error):
    """The first line of an exception's text, or its type where there is none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
