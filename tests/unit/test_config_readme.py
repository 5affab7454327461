"""configs/README.md has every key once, in the order of lib/config.py and with its default."""

import re

from conftest import ROOT

from lib.config import Config
from lib.yaml_files import parse_yaml

ROW = re.compile(r"^\| `(\w+)` \| `(.*?)` \| (.*) \|$", re.M)


def test_every_key_has_its_default():
    described = {key: parse_yaml(default) for key, default, _ in ROW.findall((ROOT / "configs/README.md").read_text())}
    defaults = {key: field.get_default() for key, field in Config.model_fields.items()}
    assert described.keys() == defaults.keys()
    assert described == defaults
    assert {key: type(value) for key, value in described.items()} == {
        key: type(value) for key, value in defaults.items()
    } | {"mlp_ratio": float}


def test_no_key_is_described_twice():
    keys = [key for key, *_ in ROW.findall((ROOT / "configs/README.md").read_text())]
    assert len(keys) == len(set(keys))
    assert "| key |" not in (ROOT / "README.md").read_text()
