"""What `import paddle_ftstrat` imports, and that each of its names is there when it is asked for."""

import ast
import importlib
import inspect
import subprocess
import sys

import pytest

import paddle_ftstrat as hub

# What a program needs that trains with none of it, or that only shows or reads something.
SELDOM = {
    "libcst",
    "llvmlite",
    "matplotlib",
    "numba",
    "rich",
    "safetensors",
    "scipy",
    "sklearn",
    "tqdm",
    "visualdl",
    "yaml",
}


def imported(code):
    """The top-level modules that a new process has, after it ran this code."""
    code += "; import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_the_import_alone_is_of_nothing_but_the_standard_library():
    found = imported("import paddle_ftstrat as hub; hub.schedules; hub.Phase")
    assert not found & {*SELDOM, "paddle"}
    assert "paddle_ftstrat" in found


def test_all_names_together_do_without_what_is_seldom_needed():
    every = "import zlib, paddle; import paddle_ftstrat as hub; [getattr(hub, name) for name in hub.__all__]"
    assert not (imported(every) - imported("import zlib, paddle")) & SELDOM


def test_each_name_has_one_home():
    """The same for type checkers as when a program runs."""
    block = next(node for node in ast.parse(inspect.getsource(hub)).body if isinstance(node, ast.If))
    read = {(node.module, alias.name) for node in block.body for alias in node.names}
    homes = {
        (f"paddle_ftstrat.{home}".rstrip("."), name) for home, names in hub._HOMES.items() for name in names.split()
    }
    assert homes == read
    assert sorted(name for _, name in homes) == sorted(hub.__all__)


@pytest.mark.parametrize("name", hub.__all__)
def test_a_name_is_what_its_module_has(name):
    home = next(home for home, names in hub._HOMES.items() if name in names.split())
    module = importlib.import_module(f"paddle_ftstrat.{home or name}")
    assert getattr(hub, name) is (getattr(module, name) if home else module)
    assert name in dir(hub)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'paddle_ftstrat' has no attribute 'ULMFitStrategy'"):
        hub.ULMFitStrategy  # noqa: B018
    assert not hasattr(hub, "__wrapped__")
