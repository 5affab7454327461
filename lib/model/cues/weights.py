"""Weights of estimators: whether they can be fetched, and what identifies them."""

import hashlib
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch

from lib.errors import describe

_TIMEOUT = 10  # s


def require_reachable(url):
    """Raise ConnectionError if nothing answers at an address within 10 s; the libraries that fetch try for much longer."""
    try:
        urlopen(Request(url, method="HEAD"), timeout=_TIMEOUT).close()
    except HTTPError:  # an answer
        pass
    except OSError as error:
        raise ConnectionError(f"no connection: {describe(getattr(error, 'reason', error))}") from error


def fingerprint(model):
    """Return the SHA-256 of a model's parameters and buffers, hexadecimal; the same wherever they were read from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
