"""The error of a torchvision that was built for another PyTorch."""

import re
from contextlib import contextmanager
from importlib.metadata import version

from lib.errors import UserError, describe

_INDEX = "https://download.pytorch.org/whl"


@contextmanager
def needing_matching_torchvision():
    """Turn a failed import in the block into a `UserError` that names the pair to install, if torchvision is the reason.

    Transformers hides that reason behind an error of its own, so torchvision is imported again to ask it.
    """
    try:
        yield
    except (ImportError, RuntimeError) as error:
        if not getattr(error, "name", None) and (reason := _mismatch()):  # a name: that package is not installed
            raise UserError(reason) from error
        raise


def _mismatch():
    """Return what does not match, in a line; None if torchvision is not there or can be imported."""
    try:
        import torchvision  # noqa: F401
    except ModuleNotFoundError:
        return None
    except (ImportError, RuntimeError, OSError) as error:  # such as "operator torchvision::nms does not exist"
        why = describe(error)
    else:
        return None
    import torch

    number, _, build = torch.__version__.partition("+")
    index = f" --index-url {_INDEX}/{build}" if build else ""
    return (
        f"torchvision {version('torchvision')} does not match torch {torch.__version__} ({why}); install a pair from "
        f"one index: pip install torch=={number} {_partner(number)}{index}"
    )


def _partner(number):
    """Return the torchvision for a release of PyTorch: 0.15 came with 2.0, 0.16 with 2.1, and so on."""
    release = re.fullmatch(r"2\.(\d+)\.(\d+)", number)
    return f"torchvision==0.{int(release[1]) + 15}.{release[2]}" if release else "torchvision"
