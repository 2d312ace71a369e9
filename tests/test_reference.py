"""The reference and the site's navigation leave nothing out."""

import argparse
import contextlib
import importlib
import importlib.util
import io
import re
from pathlib import Path

import pytest

import paddle_ftstrat as hub
from paddle_ftstrat.tools import cli

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
MODULES = (hub, hub.optim, hub.optim.lr_scheduler, hub.param_attr, hub.schedules, hub.transfer)
ENTRY = re.compile(r"^::: (\S+)$", re.MULTILINE)
FOLDERS = ("", "zh", "reference")


def hook(name):
    """A script that takes part in building the site."""
    spec = importlib.util.spec_from_file_location(f"site_{name}", ROOT / ".ci" / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def entries():
    pages = sorted((DOCS / "reference").glob("*.md"))
    return [name for page in pages for name in ENTRY.findall(page.read_text("utf-8"))]


def found_at(name):
    """What a dotted name stands for in the site: a submodule hides a function of the same name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, last = name.rpartition(".")
        return getattr(found_at(module), last)


def entry_for(module, name):
    """The line that shows a public name."""
    short, thing = f"{module.__name__}.{name}", getattr(module, name)
    return f"::: {short if found_at(short) is thing else f'{thing.__module__}.{name}'}"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_public_name_is_in_the_reference(module):
    documented = {id(found_at(name)) for name in entries()}
    # The package itself: its pages are the reference; `finetune` holds modules, at PaddleHub's paths.
    missing = [name for name in module.__all__ if id(getattr(module, name)) not in documented and name != "finetune"]
    assert not missing, f"add to a page of docs/reference: {[entry_for(module, name) for name in missing]}"


def test_nothing_is_in_the_reference_twice():
    things = [id(found_at(name)) for name in entries()]
    assert [name for name, thing in zip(entries(), things) if things.count(thing) > 1] == []


def test_the_navigation_has_every_page():
    english, chinese, reference = (part for whole in hook("pages").nav(DOCS) for part in whole.values())
    sections = [pages for part in (*english, *chinese) for pages in part.values()]
    named = [page for pages in (*sections, reference) for page in pages]
    assert sorted(named) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


def test_known_pages_come_first_and_in_their_order(tmp_path):
    for folder in FOLDERS:
        (tmp_path / folder).mkdir(exist_ok=True)
    for name in ("another", "commands", "index", "strategies", "zh/strategies", "zh/index", "reference/optim"):
        (tmp_path / f"{name}.md").touch()
    assert hook("pages").nav(tmp_path) == [
        {
            "en": [
                {"Begin": ["index.md"]},
                {"Strategies": ["strategies.md"]},
                {"Tools": ["commands.md"]},
                {"More": ["another.md"]},
            ]
        },
        {"zh": [{"开始": ["zh/index.md"]}, {"策略": ["zh/strategies.md"]}]},
        {"API": ["reference/optim.md"]},
    ]


def test_links_to_files_that_are_no_pages_become_words():
    text = "See [`demo`](../demo/a.py), [zh](../../demo/b.py) and [guide](../strategies.md)."
    assert hook("pages").on_page_markdown(text) == "See `demo`, zh and [guide](../strategies.md)."


def test_the_gallery_draws_every_schedule():
    pytest.importorskip("matplotlib")
    gallery = hook("gallery")
    assert set(gallery.OPTIONS) < set(gallery.schedules())
    for name, function in gallery.schedules().items():
        assert b"<svg" in gallery.drawn(function, gallery.OPTIONS.get(name, {}))


def test_both_languages_have_the_same_pages():
    english, chinese = ({page.name for page in (DOCS / folder).glob("*.md")} for folder in ("", "zh"))
    assert english == chinese


@pytest.mark.parametrize("folder", ["", "zh"])
def test_pages_link_to_the_other_language(folder):
    for page in (DOCS / folder).glob("*.md"):
        other = f"../{page.name}" if folder else f"zh/{page.name}"
        assert f"]({other})" in page.read_text("utf-8").split("\n## ")[0], page


class _Stop(Exception):
    pass


def commands(monkeypatch):
    """The parser of each command of `ftstrat`."""
    made = []
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", lambda self, argv=None: made.append(self) or stop())

    def stop():
        raise _Stop

    with contextlib.suppress(_Stop):
        cli.main([])
    found = next(action for action in made[0]._actions if isinstance(action, argparse._SubParsersAction))
    return found.choices


def test_every_command_and_option_is_in_the_reference(monkeypatch):
    text = (DOCS / "reference" / "commands.md").read_text("utf-8")
    parts = dict(re.findall(r"^## ftstrat (\w+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    parsers = commands(monkeypatch)
    assert list(parts) == list(parsers)
    for name, parser in parsers.items():
        rows = re.findall(r"^\| (`.*)", parts[name], re.MULTILINE)
        actions = [action for action in parser._actions if action.dest != "help"]
        assert len(rows) == len(actions)
        for action in actions:
            shown = [row for row in rows if f" {action.help} |" in row]
            assert len(shown) == 1, f"ftstrat {name}: {action.dest}: {action.help}"
            assert all(f"`{option}" in shown[0] for option in action.option_strings)


@pytest.mark.parametrize("page", ["precedence.md", "zh/precedence.md"])
def test_the_table_on_the_page_is_what_is_printed(page):
    text = (DOCS / page).read_text("utf-8")
    code, shown = re.search(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL).groups()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, page, "exec"), {})
    # Below the table stand totals, and a line more where updates are fused, which depends on the machine.
    table, totals = shown.split("\n\n")
    assert printed.getvalue().split("\n\n")[0] == table
    assert set(totals.splitlines()) <= set(printed.getvalue().splitlines())
