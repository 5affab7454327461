"""Interchangeable parts by name: a table of names, each imported when it is asked for."""

from collections.abc import Mapping
from importlib import import_module

from lib.errors import UserError, unknown


def load(place):
    """Return what is at "module:attribute", importing the module."""
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)


class Registry(Mapping):
    """Names of parts of one kind, so that a config can be read and checked without what the parts import.

    Args:
        kind: the config key or option that names a part, for messages.
        places: {name: "module:attribute"}.
    """

    def __init__(self, kind, places):
        self.kind, self.places = kind, dict(places)

    def __getitem__(self, name):
        """Return the part, importing its module.

        Raises:
            UserError: there is no part of that name.
        """
        if name not in self.places:
            raise UserError(f"{self.kind}: {unknown(name, self)}")
        return load(self.places[name])

    def __contains__(self, name):
        return name in self.places

    def __iter__(self):
        return iter(self.places)

    def __len__(self):
        return len(self.places)
