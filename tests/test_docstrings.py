"""Public names are documented: a first line, every argument, an example."""

import ast
import inspect
import textwrap

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


def functions_of(thing):
    """(label, function, the docstring that has to tell what it raises) of a function, or of a class's methods."""
    if inspect.isfunction(thing):
        return [("", thing, inspect.getdoc(thing))]
    found = []
    defined_in = {label: cls for cls in reversed(thing.__mro__) for label in vars(cls)}
    for label, base in defined_in.items():
        member = vars(base)[label]
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        built = label in ("__init__", "__post_init__", "__call__")
        # The events of a base are the loop's to call.
        event = label.startswith("on_") and base is not thing
        if not inspect.isfunction(function) or event or (label.startswith("_") and not built):
            continue
        # A dataclass's own __init__ comes from no file.
        if "paddle_ftstrat" in function.__code__.co_filename:
            found.append((f".{label}", function, inspect.getdoc(base) if built else inspect.getdoc(function)))
    return found


def raised_by(function):
    """What a function itself raises, and ("ValueError", "TypeError") where it has `_errors` check a value."""
    found, waiting = set(), list(ast.parse(textwrap.dedent(inspect.getsource(function))).body[0].body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.Lambda, ast.ClassDef)):
            continue
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            found.add((ast.unparse(node.exc.func),))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("_errors.check_"):
            found.add(("ValueError", "TypeError"))
        waiting.extend(ast.iter_child_nodes(node))
    # What an unfinished class raises is for those who write one.
    return found - {("NotImplementedError",)}


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_tells_what_it_raises(name):
    for label, function, text in functions_of(PUBLIC[name]):
        told = (text or "").partition("Raises:")[2]
        missing = [kinds for kinds in raised_by(function) if not any(kind in told for kind in kinds)]
        assert not missing, f"{name}{label} raises {missing} without saying so"
