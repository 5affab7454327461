"""Reading of a Dockerfile and of what its build is sent, without an engine."""

import re
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from conftest import ROOT, project_files


class Stage(NamedTuple):
    """base: what it begins from; steps: (instruction, rest of its line), continued lines joined."""

    base: str
    steps: list

    def of(self, instruction):
        return [rest for name, rest in self.steps if name == instruction]


def read_stages(path):
    """Return (steps before the first stage, {name: `Stage`})."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    stages, before = {}, []
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            base, stage = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()
            stages[stage] = Stage(base, [])
        elif name:
            (list(stages.values())[-1].steps if stages else before).append((name, rest.strip()))
    return before, stages


def context():
    """Return the paths of the repository's files that .dockerignore lets into a build."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    return [path for path in project_files() if _is_sent(path, rules)]


def _is_sent(path, rules):
    """Whether the last rule that fits a path lets it in."""
    sent = True
    for rule in rules:
        pattern = re.escape(rule.removeprefix("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if re.match(f"{pattern}(/|$)", path):
            sent = rule.startswith("!")
    return sent


def copy_of(stage, folder):
    """Make a folder of what the COPY steps of a stage take from the build's context; return it."""
    folder.mkdir()
    files = context()
    for step in stage.of("COPY"):
        *sources, target = step.split()
        for source in sources if not sources[0].startswith("--from") else ():
            inside = {path: within for path in files if (within := _within(source, path))}
            assert inside, f"COPY {step}: {source} is not in the build's context"
            for path, within in inside.items():
                place = folder / target / within
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / path, place)
    return folder


def _within(source, path):
    """Return the place below the target that COPY gives a path of the context; None for one that is not of the source."""
    if source == ".":
        return path
    if path.startswith(f"{source}/"):
        return path.removeprefix(f"{source}/")
    return Path(path).name if fnmatch(path, source) else None
