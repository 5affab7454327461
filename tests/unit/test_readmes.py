"""The pages that people read: what they link to is there, and the first one is short."""

import ast
import re

import pytest
from conftest import ROOT, project_files

PAGES = [ROOT / name for name in project_files("*.md")] or sorted(ROOT.glob("*.md"))
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page):
    """The names of the headings of a page, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text()):
        if not re.match(r"https?:", link):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), f"{page}: {link}"
            assert not anchor or anchor in anchors(target), f"{page}: {link}"


def test_the_first_page_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 170


def texts_of_the_code():
    """All strings of the code, f-strings with `...` for what they fill in."""
    for path in [p for f in ("lib", "tools", "kernels") for p in (ROOT / f).rglob("*.py")] + list(ROOT.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_messages_to_look_up_are_those_of_the_code():
    known = re.sub(r"%\w|\{\}", "...", "\n".join(texts_of_the_code())) + "\nNo space left on device"  # the system's
    rows = re.findall(r"^\| (`.*?) \| ", (ROOT / "TROUBLESHOOTING.md").read_text(), re.M)
    messages = [message for row in rows for message in re.findall(r"`([^`]+)`", row)]
    assert len(messages) >= 40
    for message in messages:
        fragments = [part.strip(" :;,()\"'[]") for part in re.split(r"\.\.\.|\(\.\.\.\)", message)]
        missing = [part for part in fragments if part and part not in known]
        assert not missing, f"{message}: {missing}"
