"""The files that docs/integrations.md begins its hosts with run where the host is installed."""

import importlib.util
import re
from pathlib import Path

import pytest
from raw_loops import new_process

PAGES = [Path(__file__).parents[2] / "docs" / folder / "integrations.md" for folder in (".", "zh")]
BLOCK = re.compile(r"^```(?:py|python|yaml|shell)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"\s*#.*$", re.MULTILINE)


def first_file(heading):
    text = PAGES[0].read_text("utf-8")
    return BLOCK.search(text, text.index(f"## {heading}"))[1]


@pytest.mark.parametrize(("heading", "package"), [("PaddleNLP", "paddlenlp"), ("PaddleSeg", "paddleseg")])
def test_the_file_runs(heading, package, tmp_path, monkeypatch):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    with new_process():
        exec(compile(first_file(heading), heading, "exec"), {"__name__": "__main__"})


def test_both_languages_show_the_same():
    english, chinese = ([COMMENT.sub("", block) for block in BLOCK.findall(page.read_text("utf-8"))] for page in PAGES)
    assert english == chinese
