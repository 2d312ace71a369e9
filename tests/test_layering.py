"""The rules that keep the code in its rooms."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "paddle_ftstrat"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text("utf-8")) for path in FILES}

# Lowest first; a module may import from its own level and from those below.
LEVELS = {
    "_errors": 0,
    "_files": 0,
    "schedules": 0,
    "plan": 0,
    "_paddle": 1,
    "param_attr": 1,
    "transfer": 2,
    "optim": 2,
    "acceleration": 2,
    "resolve": 3,
    "binding": 3,
    "strategies": 4,
    "training": 5,
    "tasks": 6,
    "finetune": 6,
    "integrations": 6,
    "pictures": 3,
    "tools": 7,
    "__main__": 7,
}


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path) for path in FILES}


def level(module):
    inner = module.removeprefix("paddle_ftstrat").lstrip(".")
    for known in sorted(LEVELS, key=len, reverse=True):
        if inner == known or inner.startswith(known + "."):
            return LEVELS[known]
    return 8 if not inner else pytest.fail(f"{module} has no level: enter it in tests/test_layering.py")


def imports(tree, typing=True):
    """The project's modules that a file imports, wherever in the file, for type checking only too or not."""
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if not typing and id(node) in guarded:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("paddle_ftstrat"):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("paddle_ftstrat"))


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_go_downward(path):
    here = level(module_name(path))
    for imported in imports(TREES[path], typing=False):
        assert level(imported) <= here, f"{module_name(path)} imports {imported}, which stands above it"


@pytest.mark.parametrize("typing", [False, True])
def test_there_is_no_import_cycle(typing):
    graph = {module_name(path): set(imports(TREES[path], typing)) for path in FILES}
    done, path = set(), []

    def visit(module):
        assert module not in path, f"import cycle: {' → '.join([*path, module])}"
        if module in done:
            return
        path.append(module)
        for other in graph.get(module, ()):
            # A package's __init__ runs before its modules; that those import each other is what packages are for.
            if not module.startswith(other + ".") and other != "paddle_ftstrat":
                visit(other)
        done.add(path.pop())

    for module in graph:
        visit(module)


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.parent.name == "schedules" or path.name == "plan.py"], ids=module_name
)
def test_schedules_do_without_paddle(path):
    assert not re.search(r"^\s*(import|from) paddle\b", path.read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("path", [path for path in FILES if path.name != "settings.py"], ids=module_name)
def test_only_settings_writes_parameter_fields(path):
    fields = {"optimize_attr", "regularizer", "need_clip", "stop_gradient"}
    for node in ast.walk(TREES[path]):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if isinstance(target, ast.Attribute) and target.attr in fields and ast.unparse(target.value) != "self":
                pytest.fail(f"{path.name}:{node.lineno} writes {ast.unparse(target)}")


@pytest.mark.parametrize("path", [path for path in FILES if "_paddle" not in module_name(path)], ids=module_name)
def test_only_one_folder_touches_private_paddle(path):
    # A layer's registries have no public form that keeps aliases; reading them is allowed where layers are walked.
    allowed = {"_parameters", "_sub_layers"} if path.parent.name in {"param_attr", "transfer"} else set()
    allowed |= EXTENSION_POINTS | {"_asdict", "_fields"}
    for node in ast.walk(TREES[path]):
        if not (isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr) and node.attr not in allowed):
            continue
        owner = ast.unparse(node.value)
        if owner in {"self", "cls"} or node.attr in own_private_names():
            continue
        pytest.fail(f"{path.name}:{node.lineno} touches {owner}.{node.attr}")


# What Paddle documents for subclasses of Optimizer.
EXTENSION_POINTS = {"_append_optimize_op", "_create_accumulators", "_add_accumulator", "_create_param_lr"}


def own_private_names():
    """Names with an underscore that this package itself defines."""
    if not own_private_names.found:
        for path in FILES:
            for node in ast.walk(TREES[path]):
                if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                    own_private_names.found.add(node.name)
                elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                    if isinstance(node.value, ast.Name) and node.value.id == "self":
                        own_private_names.found.add(node.attr)
                elif isinstance(node, ast.Assign):
                    own_private_names.found.update(t.id for t in node.targets if isinstance(t, ast.Name))
    return own_private_names.found


own_private_names.found = set()


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_files_have_one_subject_and_a_readable_size(path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 400
    assert not text or text.startswith('"""'), "a module says in its first line what its subject is"


def test_the_map_in_contributing_is_that_of_the_imports():
    path = PACKAGE.parent / ".ci" / "docs" / "house.py"
    spec = importlib.util.spec_from_file_location("house", path)
    house = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(house)
    assert house.PLACE.search(house.PAGE.read_text("utf-8"))[0] == house.drawn(), f"python {path}"
