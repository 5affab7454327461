"""Shared frame of all commands: parsing of options, errors as one line, exit codes."""

import argparse
import math
import signal
import sys
from contextlib import suppress

from tqdm import tqdm

from lib.errors import UserError, nearest
from lib.memory import reuse_freed_memory
from lib.threads import spin_briefly

_MEMORY = "close other programs, or use a machine with more"


class Parser(argparse.ArgumentParser):
    """Options in any order among positional arguments; a wrong one is a `UserError` that names the nearest."""

    def __init__(self, **keywords):
        super().__init__(allow_abbrev=False, **keywords)

    def parse(self, arguments=None):
        options, rest = self.parse_known_intermixed_args(arguments)
        if rest:
            known = [o for action in self._actions for o in action.option_strings if o[:2] == "--"]
            raise UserError(f"{rest[0]}: unknown option{nearest(rest[0].split('=')[0], known)}; see --help")
        return options

    def error(self, message):
        raise UserError(f"{message}; see --help")


def positive_number(text):
    """Return the number above 0 that an option's text says."""
    return number_within(text, lambda number: 0 < number < math.inf, "a number above 0")


def number_within(text, fits, expected):
    """Return the number that a text says.

    Raises:
        ArgumentTypeError: it says none, or one that does not fit.
    """
    with suppress(ValueError):
        if fits(number := float(text)):
            return number
    raise argparse.ArgumentTypeError(f"expected {expected}")


def count(text):
    """Return the number that an option says, for argparse: a whole one of at least 1."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def whole(text):
    """Return the number that an option says, for argparse: a whole one of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got {text!r}")
    return int(text)


def progress_bar(items, doing, **looks):
    """Return an iterator over `items` that shows a progress bar on a terminal; `looks` are tqdm's arguments."""
    return tqdm(items, desc=doing, disable=True if sys.stderr is None else None, **looks)


def run(main, when_memory_ends=_MEMORY):
    """Call main() and exit: 0, or a user's error as one line and its exit code, or 130 when interrupted.

    A request to end (SIGTERM, or SIGUSR1 of a batch system) counts as an interruption, so that what is open is closed.

    Args:
        when_memory_ends: what a user can do then, in options and keys that this command has.
    """
    for name in {"SIGTERM", "SIGUSR1"} & set(dir(signal)):
        signal.signal(getattr(signal, name), signal.default_int_handler)
    reuse_freed_memory()
    spin_briefly()  # for commands that load PyTorch only now
    for stream in filter(None, (sys.stdout, sys.stderr)):  # a closed one is None
        stream.reconfigure(errors="replace")  # a terminal without the table's characters
    try:
        main()
    except (Exception, KeyboardInterrupt) as error:
        line, code = ending(error, when_memory_ends)
        if line is None:
            raise
        print(line, file=sys.stderr)
        sys.exit(code)


def ending(error, when_memory_ends=_MEMORY):
    """Return the line that a command ends with for an exception, and its exit code; the line of a crash is None."""
    if isinstance(error, UserError):
        return f"error: {error}", error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    if isinstance(error, OSError):
        return f"error: {error.filename or 'system'}: {error.strerror or error}", 2
    known = ("out of memory", "can't allocate memory")
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(t in str(error) for t in known)):
        return f"error: out of memory; {when_memory_ends}", 1
    return None, 1
