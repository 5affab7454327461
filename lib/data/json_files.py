"""Reading JSON files of data sets."""

import json

from lib.errors import UserError, describe
from lib.files import require_file


def read_json(path, kind):
    """Return the content of a JSON file of `kind`, which is dict or list.

    Raises:
        UserError: there is no such file, it is truncated or no JSON, or of another kind.
    """
    path = require_file(path, "; set dt_root")
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:  # no JSON, or no UTF-8
        raise UserError(f"{path}: is truncated or no JSON ({describe(error)}); copy it again") from error
    if not isinstance(content, kind):
        raise UserError(f"{path}: is a {type(content).__name__}, a {kind.__name__} is needed")
    return content
