"""Renamed names: they work for two minor releases more, and say what to write."""

import ast
import importlib
import sys
import types
import warnings
from pathlib import Path

import pytest

import paddle_ftstrat
from paddle_ftstrat import _errors

PACKAGE = Path(paddle_ftstrat.__file__).parent
CALLS = [
    (".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"), node.args)
    for path in sorted(PACKAGE.rglob("*.py"))
    for node in ast.walk(ast.parse(path.read_text("utf-8")))
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "_errors.renamed"
]
RENAMED = [
    (module, ast.literal_eval(since), *names)
    for module, (_, since, table) in CALLS
    for names in ast.literal_eval(table).items()
]


@pytest.mark.parametrize(("module", "since", "old", "new"), RENAMED)
def test_an_old_name_is_the_new_one_and_warns_where_it_is_used(module, since, old, new):
    module = importlib.import_module(module)
    major, minor = map(int, since.split("."))
    name = f"{module.__name__}.{new}"
    with pytest.warns(DeprecationWarning, match=f"{old} is called {new} since {since}: write {name};") as caught:
        assert getattr(module, old) is getattr(module, new)
    assert [one.filename for one in caught] == [__file__]
    assert str(caught[0].message).endswith(f"the old name goes in {major}.{minor + 2}")
    assert old not in module.__all__


@pytest.mark.parametrize("since", sorted({since for _, since, *_ in RENAMED}))
def test_names_whose_two_minor_releases_are_over_are_gone(since):
    major, minor = map(int, since.split("."))
    assert tuple(map(int, paddle_ftstrat.__version__.split(".")[:2])) < (major, minor + 2)


def test_a_place_is_warned_once_and_another_name_is_unknown(monkeypatch):
    module = types.ModuleType("some.where")
    module.new, module.__getattr__ = 1, _errors.renamed("some.where", "1.9", {"old": "new"})
    monkeypatch.setitem(sys.modules, "some.where", module)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        assert [module.old for _ in range(3)] == [1, 1, 1]
        assert module.old + module.old == 2
    assert [str(one.message)[-4:] for one in caught] == ["1.11", "1.11"]
    with pytest.raises(AttributeError, match="module 'some.where' has no attribute 'other'"):
        module.other  # noqa: B018
