"""What the documents show runs as it stands there."""

import re
import warnings
from pathlib import Path
from unittest import mock

import pytest

from paddle_ftstrat.optim.averaging import AVERAGES
from paddle_ftstrat.schedules import SCHEDULES

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("README*.md"), ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
SNIPPET = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if SNIPPET.search(page.read_text("utf-8"))], ids=lambda p: p.name
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_snippets_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # A page is no place for what the library warns of.
    warnings.filterwarnings("error", category=UserWarning, module=page.stem)
    names = {"__name__": page.stem}
    # What a page registers is gone when it ends.
    with mock.patch.dict(SCHEDULES), mock.patch.dict(AVERAGES):
        for snippet in SNIPPET.findall(page.read_text("utf-8")):
            exec(compile(snippet, str(page), "exec"), names)


def test_readmes_show_the_same_code():
    english, chinese = (SNIPPET.findall((ROOT / name).read_text("utf-8")) for name in ("README.md", "README_zh.md"))
    strip = re.compile(r"\s*#.*$", re.MULTILINE)
    assert [strip.sub("", code) for code in english] == [strip.sub("", code) for code in chinese]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_point_to_files(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", ["docs/support.md", "docs/zh/support.md"])
def test_the_versions_that_are_supported_are_those_that_are_run(page):
    run = (ROOT / ".ci" / "run").read_text("utf-8") + (ROOT / "requirements.txt").read_text("utf-8")
    table = re.search(r"<!-- matrix -->(.*?)<!-- /matrix -->", (ROOT / page).read_text("utf-8"), re.DOTALL)[1]
    version = r"paddlepaddle(?:-gpu)?[ =]+([\d.]+\d)"
    others = set(re.findall(version, (ROOT / ".ci" / "pythons").read_text("utf-8")))
    assert set(re.findall(version, table)) == set(re.findall(version, run)) == others
