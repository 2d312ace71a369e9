"""Which small errors the tests notice: a sample of mutants of each module, against the tests that are for it.

python .ci/mutants.py [MODULE …] [--sample 40] [--seed 0] [--survivors]

A mutant is a module with one comparison, operator, constant, condition or returned value changed, or one call left
out. Paddle is loaded once; each mutant is imported and tested in a process forked from that one, first by the tests
that call the changed function: those that have killed most, then the shortest. benchmarks/results/mutants.json gets
the figures and what survived; a survivor that has a `reason` there, for this change in this function, behaves like the
original and is not counted; the second of equal changes in a function has " (2)" behind it. `--survivors` tries only
those again.
"""

import zlib  # isort: skip - before Paddle (see paddle_ftstrat/__init__.py)  # noqa: F401
import argparse
import ast
import copy
import gc
import importlib
import importlib.machinery
import json
import os
import random
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import hypothesis  # noqa: F401
import matplotlib.pyplot  # noqa: F401
import numba  # noqa: F401
import paddle
import pytest

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "mutants.json"
TESTS = {
    "schedules/schedule": "schedule",
    "schedules/curves": "curves golden_hub policies",
    "schedules/annealing": "annealing",
    "schedules/torch_curves": "lr_scheduler",
    "schedules/suggest": "suggest",
    "resolve": "precedence depth kinds phases binding sweeps",
    "param_attr/depth": "depth kinds transfer_tune",
    "param_attr/settings": "settings",
    "optim/build": "strategy binding",
    "optim/regularizer": "binding",
    "binding": "binding phases policies",
}
SWAPS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip


def others(node):
    """What may stand in a node's place."""
    value = getattr(node, "value", None)
    if isinstance(node, ast.Compare):
        ops = node.ops
        return [changed(node, ops=[*ops[:i], SWAPS[type(op)](), *ops[i + 1 :]]) for i, op in enumerate(ops)]
    if isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp)):
        return [changed(node, op=SWAPS[type(node.op)]())]
    if isinstance(node, ast.UnaryOp):
        return [node.operand]
    if isinstance(node, ast.Constant) and isinstance(value, (bool, int, float)):
        return [ast.Constant(not value if isinstance(value, bool) else value + 1)]
    if isinstance(node, ast.Constant) and isinstance(value, str) and value.isidentifier():
        return [ast.Constant(value + "_")]
    if isinstance(node, ast.Return) and value is not None and ast.unparse(value) != "None":
        return [ast.Return(ast.Constant(None))]
    if isinstance(node, (ast.If, ast.IfExp, ast.While)):
        test = node.test
        # Of these another mutant is the negation.
        swapped = isinstance(test, ast.Compare) and not isinstance(test.ops[0], (ast.Lt, ast.LtE, ast.Gt, ast.GtE))
        return [] if swapped or isinstance(test, ast.UnaryOp) else [changed(node, test=ast.UnaryOp(ast.Not(), test))]
    return [ast.Pass()] if isinstance(node, ast.Expr) and isinstance(value, ast.Call) else []


def changed(node, **fields):
    """A copy with other fields."""
    node = copy.copy(node)
    vars(node).update(fields)
    return node


class Change(NamedTuple):
    """A mutant: where it is, and what is changed there."""

    line: int
    function: str
    text: str
    span: tuple  # the function's lines


class Mutator(ast.NodeTransformer):
    """Notes every change that there is, and makes number `target`. Messages, types and decorators are left alone."""

    def __init__(self, target=None):
        self.target, self.found, self.scopes = target, [], [("", (0, 1_000_000))]
        self.times = Counter()

    def visit(self, node):
        """The node, or what stands in its place."""
        if isinstance(node, (ast.Raise, ast.JoinedStr)):
            return node
        name, span = self.scopes[-1]
        inner = f"{name}.{node.name}".lstrip(".") if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else name
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            # Python has a decorated function begin with its decorators.
            span = min(one.lineno for one in (node, *getattr(node, "decorator_list", ()))), node.end_lineno
        self.scopes.append((inner, span))
        for field, value in ast.iter_fields(node):
            if isinstance(value, ast.AST) and field not in ("annotation", "returns"):
                setattr(node, field, self.visit(value))
            elif isinstance(value, list) and field != "decorator_list":
                value[:] = [self.visit(part) if isinstance(part, ast.AST) else part for part in value]
        self.scopes.pop()
        for other in others(node):
            text = " → ".join(ast.unparse(one).split("\n")[0] for one in (node, other))
            self.times[name, text] += 1
            text += f" ({self.times[name, text]})" if self.times[name, text] > 1 else ""
            self.found.append(Change(node.lineno, name, text, self.scopes[-1][1]))
            if len(self.found) - 1 == self.target:
                return ast.fix_missing_locations(ast.copy_location(other, node))
        return node


class Finder:
    """Has one module imported from a changed tree."""

    def __init__(self, path, tree):
        self.path, self.tree, self.name = str(path), tree, ".".join(path.relative_to(ROOT).with_suffix("").parts)

    def find_spec(self, name, path=None, target=None):
        """That of the changed module."""
        return importlib.machinery.ModuleSpec(name, self, origin=self.path) if name == self.name else None

    def create_module(self, spec):
        """As usual."""

    def exec_module(self, module):
        """Run the changed code under the file's name."""
        module.__file__ = self.path
        exec(compile(self.tree, self.path, "exec"), vars(module))


class Runner:
    """Runs the chosen tests in their order; without a choice all, and notes their time and the functions they call."""

    def __init__(self, path, chosen=None):
        self.path, self.chosen, self.tests = str(path), chosen, {}

    def pytest_collection_modifyitems(self, items):
        """Only the chosen ones."""
        if self.chosen is not None:
            place = {name: number for number, name in enumerate(self.chosen)}
            items[:] = sorted((one for one in items if one.nodeid in place), key=lambda one: place[one.nodeid])

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item):
        """Note where functions of the module begin that are called meanwhile."""
        lines, begun = set(), time.process_time()

        def note(frame, *_):
            if frame.f_code.co_filename == self.path:
                lines.add(frame.f_code.co_firstlineno)

        sys.settrace(note if self.chosen is None else None)
        yield
        sys.settrace(None)
        self.tests[item.nodeid] = (time.process_time() - begun, sorted(lines))


def forked(path, tree, files, chosen=None, seconds=3_000):
    """pytest's status with the changed module, and each test's seconds and called functions."""
    receive, send = os.pipe()
    if pid := os.fork():
        os.close(send)
        with os.fdopen(receive) as stream:
            notes = stream.read()
        return os.waitpid(pid, 0)[1], json.loads(notes or "{}")
    # What hangs is killed, too.
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    if chosen is not None:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1), os.dup2(silence, 2)
    finder, runner = Finder(path, tree), Runner(path, chosen)
    sys.meta_path.insert(0, finder)
    try:
        # Before pytest, which imports the files that it is given in its own way.
        importlib.import_module(finder.name)
        without = [word for name in ("cacheprovider", "unraisableexception") for word in ("-p", f"no:{name}")]
        status = pytest.main(["-x", "-q", *without, *files], plugins=[runner])
        with os.fdopen(send, "w") as stream:
            json.dump(runner.tests, stream)
        os._exit(int(status))
    finally:
        os._exit(1)


def of_module(key, wanted):
    """Each change tried, and whether it was killed."""
    path = ROOT / "paddle_ftstrat" / f"{key}.py"
    source = path.read_text("utf-8")
    files = [str(path.relative_to(ROOT)), *(f"tests/test_{name}.py" for name in TESTS[key].split())]
    status, tests = forked(path, ast.parse(source), files)
    if status or not tests:
        sys.exit(f"the tests of {key} fail without a change, too")
    every, kills = Mutator(), Counter()
    every.visit(ast.parse(source))
    for number in wanted(every.found):
        change = every.found[number]
        first, last = change.span
        calling = {name for name, (_, lines) in tests.items() if any(first <= at <= last for at in lines)}
        # What is called while tests are collected, in tables of cases, is not known: the others run last.
        order = sorted(tests, key=lambda name: (name not in calling, -kills[name], tests[name][0]))
        limit = 10 + 5 * int(sum(seconds for seconds, _ in tests.values()))
        status, run = forked(path, Mutator(number).visit(ast.parse(source)), files, order, limit)
        killed = status != 0
        kills.update([*run][-1:] if killed else [])
        result = "killed  " if killed else "SURVIVED"
        print(f"{result} {key}:{change.line} {change.function}: {change.text} ({len(calling)} tests)", flush=True)
        yield change, killed


def results():
    """What is known so far."""
    return json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}


def main():
    """Try the modules, and enter each into the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("modules", nargs="*", default=list(TESTS))
    parser.add_argument("--sample", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--survivors", action="store_true")
    options = parser.parse_args()
    os.chdir(ROOT)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    gc.freeze()  # what is here already is no garbage in the processes to come
    for key in options.modules:
        before = results().get(key, {"survivors": []})
        reasons = {(one["function"], one["change"]): one["reason"] for one in before["survivors"]}

        def wanted(found, before=frozenset(reasons)):
            if options.survivors:
                return [number for number, one in enumerate(found) if (one.function, one.text) in before]
            return sorted(random.Random(options.seed).sample(range(len(found)), min(options.sample, len(found))))

        tried = list(of_module(key, wanted))
        left = [
            {"line": n, "function": name, "change": text, "reason": reasons.get((name, text), "")}
            for (n, name, text, _), killed in tried
            if not killed
        ]
        mutants = before["mutants"] if options.survivors else len(tried)
        equivalent = sum(bool(one["reason"]) for one in left)
        known = results()
        known[key] = {"mutants": mutants, "killed": mutants - len(left), "equivalent": equivalent, "survivors": left}
        known[key]["paddle"] = paddle.__version__
        RESULTS.write_text(json.dumps(known, indent=1, ensure_ascii=False, sort_keys=True) + "\n", "utf-8")
        print(f"{key}: {mutants - len(left)} of {mutants - equivalent} killed", flush=True)


if __name__ == "__main__":
    main()
