"""What every command of the project does around its `main`."""

import argparse
import math
import signal
import sys
from contextlib import suppress

from tqdm import tqdm

from lib.errors import UserError, nearest
from lib.memory import reuse_freed_memory


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
    """The type of an option that is a number above 0."""
    return number_within(text, lambda number: 0 < number < math.inf, "a number above 0")


def number_within(text, fits, expected):
    """The number that a text says.

    Raises:
        ArgumentTypeError: it says none, or one that does not fit.
    """
    with suppress(ValueError):
        if fits(number := float(text)):
            return number
    raise argparse.ArgumentTypeError(f"expected {expected}")


def progress_bar(items, doing, **looks):
    """`items`, which show a bar on a terminal while they are gone through; `looks` are tqdm's arguments."""
    return tqdm(items, desc=doing, disable=True if sys.stderr is None else None, **looks)


def run(main, when_memory_ends="close other programs, or use a machine with more"):
    """Calls main() and exits: 0, or a user's error as one line and its exit code, or 130 when interrupted.

    A request to end (SIGTERM) counts as an interruption, so that what is open is closed.

    Args:
        when_memory_ends: what a user can do then, in options and keys that this command has.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    reuse_freed_memory()
    for stream in filter(None, (sys.stdout, sys.stderr)):  # a closed one is None
        stream.reconfigure(errors="replace")  # a terminal without the table's characters
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        print(f"error: {error.filename or 'system'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except (RuntimeError, MemoryError) as error:
        known = ("out of memory", "can't allocate memory")
        if not isinstance(error, MemoryError) and not any(text in str(error) for text in known):
            raise
        print(f"error: out of memory; {when_memory_ends}", file=sys.stderr)
        sys.exit(1)
