"""Reader of YAML files that have an entry for each of the 17 joints under `joints`, checked by a pydantic model."""

from pydantic import BaseModel, ConfigDict, ValidationError

from lib.body.skeleton import JOINTS
from lib.errors import UserError, first_invalid, nearest
from lib.yaml_files import read_yaml


class Strict(BaseModel):
    """Base of the models of such files: no other keys, no infinite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def read_joint_table(path, model, entry=None, optional=()):
    """Read a YAML file as `model`, which has a dict `joints`.

    Args:
        entry: what is expected under a joint, for the message about an invalid one; pydantic's by default.
        optional: joints that may be missing.

    Raises:
        UserError: the file is missing, not YAML or not such a table, or a joint is unknown or missing; names the key.
    """
    content = read_yaml(path)
    try:
        table = model.model_validate(content)
    except ValidationError as error:
        keys, problem = first_invalid(error, model.model_fields)
        if entry and keys[:1] == ("joints",) and len(keys) > 1:
            keys, problem = keys[:2], f"expected {entry}"
        raise UserError(f"{path}: {': '.join(keys) or 'the file'}: {problem}") from error
    for joint in table.joints:
        if joint not in JOINTS:
            raise UserError(f"{path}: joints: unknown joint {joint!r}{nearest(joint, JOINTS)}")
    for joint in JOINTS:
        if joint not in table.joints and joint not in optional:
            raise UserError(f"{path}: joints: joint {joint!r} is missing; all of {', '.join(JOINTS)} are needed")
    return table
