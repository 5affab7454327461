"""Errors that a user can cause or must act on: one line each, no traceback."""

import difflib
from contextlib import contextmanager

OPENCV_LIBRARIES = "libgl1 libglib2.0-0"  # of the system, as Debian's packages


class UserError(Exception):
    """Bad input: the message names the file, key or argument and the way out."""

    exit_code = 2


class TrainingStopped(UserError):
    """Training cannot go on (a loss that is not finite); what was saved before is untouched."""

    exit_code = 1


@contextmanager
def needing(what, requirements, libraries=OPENCV_LIBRARIES):
    """Turn a failed import in the block into a `UserError` that says what to install for `what`.

    Args:
        requirements: file of its Python packages.
        libraries: Debian's packages of the system's libraries that these load.
    """
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
            f"{what}: {describe(error)}; a library of the system is missing (Debian: apt-get install {libraries})"
        ) from error


def nearest(word, known):
    """Return " (did you mean 'x'?)" for the most similar of `known`, or an empty string."""
    names = {str(k).lower(): str(k) for k in known}
    matches = difflib.get_close_matches(str(word).lower(), names, n=1, cutoff=0.5)
    return f" (did you mean {names[matches[0]]!r}?)" if matches else ""


def unknown(word, known):
    """Return "'word' is unknown (did you mean 'x'?); there are ..." of a name that is not among `known`."""
    return f"{word!r} is unknown{nearest(word, known)}; there are {', '.join(known)}"


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
