"""Errors that a user can cause or must act on: one line each, no traceback."""

import difflib
from contextlib import contextmanager


class UserError(Exception):
    """Bad input: the message names the file, key or argument and the way out."""

    exit_code = 2


class TrainingStopped(UserError):
    """Training cannot go on (a loss that is not finite); what was saved before is untouched."""

    exit_code = 1


@contextmanager
def needing(what, requirements):
    """Turn a failed import in the block into a `UserError` that says what to install for `what`."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(
            f"{what} needs the package {error.name}, which is not installed: pip install -r {requirements}"
        ) from error
    except (ImportError, OSError) as error:
        if "shared object" not in str(error):
            raise
        raise UserError(
            f"{what}: {describe(error)}; a library of the system is missing "
            "(Debian: apt-get install libgl1 libegl1 libgles2 libglib2.0-0)"
        ) from error


def nearest(word, known):
    """Return " (did you mean 'x'?)" for the most similar of `known`, or an empty string."""
    matches = difflib.get_close_matches(str(word), [str(k) for k in known], n=1, cutoff=0.5)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def first_invalid(error, known=()):
    """Return the path of keys and the problem of the first entry of a pydantic `ValidationError`.

    known: keys, of which the most similar one is suggested for an unknown key.
    """
    first = error.errors()[0]
    path = tuple(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return path, f"unknown key{nearest(path[-1], known)}"
    return path, f"{first['msg'][0].lower()}{first['msg'][1:]}"


def describe(error):
    """Return the first line of an exception's text, or its type where there is none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
