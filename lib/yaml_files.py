"""Reading YAML as people write it."""

import re

import yaml

from lib.errors import UserError, describe
from lib.files import require_file


def read_yaml(path):
    """Return the content of a YAML file.

    Raises:
        UserError: the file is missing or not YAML, or gives a key twice; names the line.
    """
    path = require_file(path)
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, TypeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        place = f"line {line + 1}: " if line is not None else ""
        raise UserError(f"{path}: {place}is not YAML ({getattr(error, 'problem', None) or describe(error)})") from error


def parse_yaml(text):
    """Return the content of YAML text; 2e-4 is a number (YAML 1.1 wants 2.0e-4).

    Raises:
        yaml.YAMLError, ValueError, TypeError: it is not YAML, or gives a key twice.
    """
    return yaml.load(text, _Loader)


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
