"""What `import paddle_ftstrat` imports, and that each of its names is there when it is asked for."""

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


@pytest.mark.parametrize("package", [hub, hub.transfer], ids=lambda package: package.__name__)
def test_every_name_can_be_had(package):
    assert all(getattr(package, name) is not None for name in package.__all__)
    assert set(package.__all__) <= set(dir(package))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="paddle_ftstrat attribute ULMFitStrategy"):
        hub.ULMFitStrategy  # noqa: B018
    assert not hasattr(hub, "__wrapped__")
