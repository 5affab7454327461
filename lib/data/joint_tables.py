"""YAML files with an entry for each of the 17 joints under `joints`, checked by a pydantic model."""

from pydantic import BaseModel, ConfigDict, ValidationError

from lib.body.skeleton import JOINTS
from lib.errors import UserError, nearest
from lib.yaml_files import read_yaml


class Strict(BaseModel):
    """A part of such a file: no other keys, no infinite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def first_problem(error):
    """A pydantic error as "key: what is wrong"."""
    place = ": ".join(str(part) for part in error["loc"])
    return f"{place or 'the file'}: {error['msg'][0].lower()}{error['msg'][1:]}"


def read_joint_table(path, model, explain=first_problem):
    """The `model`, which has a dict `joints`, of a YAML file.

    Args:
        path: the file.
        explain: makes a message of a pydantic error.

    Raises:
        UserError: the file is missing, not YAML or not such a table, or a joint is unknown or missing; names the key.
    """
    content = read_yaml(path)
    try:
        table = model.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error.errors()[0])}") from error
    for joint in table.joints:
        if joint not in JOINTS:
            raise UserError(f"{path}: joints: unknown joint {joint!r}{nearest(joint, JOINTS)}")
    for joint in JOINTS:
        if joint not in table.joints:
            raise UserError(f"{path}: joints: joint {joint!r} is missing; all of {', '.join(JOINTS)} are needed")
    return table
