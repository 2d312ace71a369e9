"""Public names are documented: a first line, every argument, an example."""

import inspect

import pytest

import paddle_ftstrat as hub

MODULES = (hub, hub.optim, hub.optim.lr_scheduler, hub.param_attr, hub.schedules, hub.transfer)
PUBLIC = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in MODULES
    for name in module.__all__
    if inspect.isclass(getattr(module, name)) or inspect.isfunction(getattr(module, name))
}


# What the library makes and users only receive.
RECEIVED = (hub.Binding,)


def documented_arguments(thing):
    if inspect.isclass(thing) and (issubclass(thing, BaseException) or thing in RECEIVED):
        return []
    function = thing.__init__ if inspect.isclass(thing) else thing
    if inspect.isclass(thing) and function is object.__init__:
        return []
    parameters = list(inspect.signature(function).parameters.values())
    return [p.name for p in (parameters[1:] if inspect.isclass(thing) else parameters) if not p.name.startswith("_")]


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_says_what_it_is_in_one_line(name):
    text = inspect.getdoc(PUBLIC[name])
    assert text, f"{name} has no docstring"
    first = text.split("\n\n")[0]
    assert "\n" not in first, f"{name} begins with more than a line"
    assert first.endswith((".", ":", "?")), f"the first line of {name} is no sentence: {first}"


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_names_every_argument(name):
    thing = PUBLIC[name]
    text = inspect.getdoc(thing) or ""
    missing = [argument for argument in documented_arguments(thing) if argument not in text]
    assert not missing, f"{name} does not explain {missing}"


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_shows_an_example(name):
    assert ">>>" in (inspect.getdoc(PUBLIC[name]) or ""), f"{name} has no example"
