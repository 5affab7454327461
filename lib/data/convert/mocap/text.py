"""Reader of the lines of a text file, with their numbers for messages."""

import numpy as np

from lib.errors import UserError, describe
from lib.files import require_file


def read_lines(path):
    """Return [(number, line)] of the lines that are not blank; numbers count from 1.

    Raises:
        UserError: there is no such file, or it cannot be read.
    """
    try:
        content = require_file(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({describe(error)})") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")  # comments may hold anything
    return [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def bad_line(path, number, problem):
    """Return the error for one line of a file."""
    return UserError(f"{path}: line {number}: {problem}")


def numbers(path, number, words, count):
    """Return `count` finite floats (count,) of one line's words.

    Raises:
        UserError: there are more or fewer, or a word is not a finite number.
    """
    return number_table(path, [number], [words], count)[0]


def number_table(path, line_numbers, rows, count):
    """Return lists of words, one per line, as floats (lines, count).

    Raises:
        UserError: naming the first line that has more or fewer words, or one that is not a finite number.
    """
    for number, words in zip(line_numbers, rows):
        if len(words) != count:
            raise bad_line(path, number, f"{len(words)} values, expected {count}")
    try:
        table = np.array(rows, dtype=np.float64).reshape(len(rows), count)
    except ValueError:
        table = np.array([[_number(word) for word in words] for words in rows])
    wrong = np.argwhere(~np.isfinite(table))
    if len(wrong):
        row, column = wrong[0]
        raise bad_line(path, line_numbers[row], f"{rows[row][column]!r} is not a finite number")
    return table


def _number(word):
    try:
        return float(word)
    except ValueError:
        return np.nan
