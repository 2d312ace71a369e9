"""`ftstrat migrate` as a command: files, folders, what is written, what is printed, exit codes."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

from paddle_ftstrat.tools import cli

INPUTS = Path(__file__).parent / "migrate" / "inputs"
DONE = "import paddlehub as hub\nstrategy = hub.DefaultStrategy(optimizer_name='sgd')\n"
BY_HAND = "import paddlehub as hub\nmodule = hub.Module(name='ernie')\nconfig = hub.RunConfig(num_epoch=3)\n"
BROKEN = "import paddlehub as hub\nprint 'Python 2'\n"
NEW = DONE.replace("paddlehub", "paddle_ftstrat")

needs_libcst = pytest.mark.skipif(importlib.util.find_spec("libcst") is None, reason="the tool needs LibCST")
pytestmark = needs_libcst


def ftstrat(*arguments):
    return cli.main(["migrate", *map(str, arguments)])


@pytest.fixture
def script(tmp_path):
    def write(text, name="old.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
        return path

    return write


class TestExitCodes:
    @pytest.mark.parametrize(("text", "code"), [(DONE, 0), (BY_HAND, 1), (BROKEN, 2), ("x = 1\n", 0)])
    def test_of_one_file(self, script, text, code):
        assert ftstrat(script(text)) == code

    def test_the_worst_of_several(self, script):
        done, by_hand, broken = script(DONE, "a.py"), script(BY_HAND, "b.py"), script(BROKEN, "c.py")
        assert ftstrat(done, by_hand) == 1
        assert ftstrat(done, by_hand, broken) == 2

    def test_again(self, script):
        done, by_hand = script(DONE, "a.py"), script(BY_HAND, "b.py")
        assert (ftstrat(done), ftstrat(by_hand)) == (0, 1)
        assert (ftstrat(done), ftstrat(by_hand)) == (0, 1)

    def test_check_tells_of_a_file_that_would_be_rewritten(self, script):
        path = script(DONE)
        assert ftstrat("--check", path) == 1
        assert path.read_text() == DONE
        ftstrat(path)
        assert ftstrat("--check", path) == 0

    def test_a_missing_file(self, tmp_path, capsys):
        assert ftstrat(tmp_path / "none.py") == 2
        assert "none.py: left as it is: [Errno 2] No such file" in capsys.readouterr().out

    def test_without_libcst(self, script, monkeypatch, capsys):
        monkeypatch.setitem(sys.modules, "libcst", None)
        path = script(DONE)
        assert ftstrat(path) == 2
        assert "pip install 'paddle_ftstrat[migrate]'" in capsys.readouterr().err
        assert path.read_text() == DONE


class TestWriting:
    def test_in_place(self, script):
        path = script(DONE)
        path.chmod(0o755)
        ftstrat(path)
        assert path.read_text() == NEW
        assert path.stat().st_mode & 0o777 == 0o755
        assert [p.name for p in path.parent.iterdir()] == ["old.py"]

    def test_beside(self, script, tmp_path):
        path = script(DONE)
        assert ftstrat(path, "-o", tmp_path / "new.py") == 0
        assert (path.read_text(), (tmp_path / "new.py").read_text()) == (DONE, NEW)

    def test_a_file_that_cannot_be_read_is_left_alone(self, script, tmp_path, capsys):
        path = script(BROKEN)
        assert ftstrat(path, "-o", tmp_path / "new.py") == 2
        assert path.read_text() == BROKEN
        assert not (tmp_path / "new.py").exists()
        assert "left as it is: not Python 3: line 2: Missing parentheses" in capsys.readouterr().out

    def test_a_folder_in_place_and_into_another(self, tmp_path, script):
        folder = tmp_path / "project"
        script(DONE, "project/a.py"), script(DONE, "project/deep/b.py"), script("x = 1\n", "project/c.py")
        script(DONE, "project/.venv/lib.py"), script(DONE, "project/notes.txt")
        assert ftstrat(folder, "-o", tmp_path / "out") == 0
        written = {p.relative_to(tmp_path / "out").as_posix(): p.read_text() for p in (tmp_path / "out").rglob("*.py")}
        assert written == {"a.py": NEW, "deep/b.py": NEW, "c.py": "x = 1\n"}
        assert (folder / "a.py").read_text() == DONE
        assert ftstrat(folder) == 0
        assert (folder / "deep" / "b.py").read_text() == NEW
        assert (folder / ".venv" / "lib.py").read_text() == (folder / "notes.txt").read_text() == DONE

    def test_several_files_into_a_folder(self, tmp_path, script):
        assert ftstrat(script(DONE, "a.py"), script(DONE, "b.py"), "-o", tmp_path / "out") == 0
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.py", "b.py"]

    def test_two_files_that_would_be_one(self, tmp_path, script, capsys):
        assert ftstrat(script(DONE, "x/a.py"), script(DONE, "y/a.py"), "-o", tmp_path / "out") == 2
        assert "would both be written to" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    def test_a_link_is_followed(self, script, tmp_path):
        path, link = script(DONE), tmp_path / "link.py"
        link.symlink_to(path)
        ftstrat(link)
        assert link.is_symlink()
        assert path.read_text() == NEW


class TestPrinting:
    def test_a_diff_writes_nothing(self, script, capsys):
        path = script(DONE)
        assert ftstrat("--diff", path) == 0
        printed = capsys.readouterr()
        assert "-import paddlehub as hub\n+import paddle_ftstrat as hub\n" in printed.out
        assert "would be rewritten" in printed.err
        assert path.read_text() == DONE

    def test_to_standard_output(self, script, capsys):
        path = script(DONE)
        assert ftstrat(path, "-o", "-") == 0
        assert capsys.readouterr().out == NEW
        assert path.read_text() == DONE

    def test_the_summary(self, script, capsys):
        ftstrat(script(DONE, "a.py"), script(BY_HAND, "b.py"), script(BROKEN, "c.py"))
        printed = capsys.readouterr().out
        for part in (
            "a.py: rewritten\n",
            "    line    1  import paddlehub as hub → import paddle_ftstrat as hub",
            "b.py: rewritten, 1 place left to do by hand",
            "    line    2  build the model itself: model = paddlenlp.transformers.AutoModelForSequenceClassification",
            "c.py: left as it is",
            "3 files: 1 done, 1 with 1 place marked `# TODO(ftstrat)`, 1 failed",
        ):
            assert part in printed

    def test_nothing_to_do(self, script, capsys):
        assert ftstrat(script("x = 1\n")) == 0
        assert capsys.readouterr().out == "nothing here uses PaddleHub 1.x or paddle.fluid\n"

    @pytest.mark.parametrize("text", ["{}", "", "[1]", '{"cells": 3}', '{"worksheets": []}'])
    def test_what_only_has_the_name_of_a_notebook_is_named(self, script, capsys, text):
        path = script(text, "old.ipynb")
        assert ftstrat(path) == 2
        assert "old.ipynb: left as it is: not a notebook of Jupyter's format 4" in capsys.readouterr().out
        assert path.read_text() == text


class TestOneFileOfMany:
    @pytest.mark.parametrize(
        "bad",
        [
            b"# \xc4\xe3\xba\xc3\nimport paddlehub as hub\n",
            b"import paddlehub as hub\nx = 1\n# \xc4\xe3\xba\xc3\n",
            b"# coding: nonsense\nimport paddlehub as hub\n",
            b"\xff\xfei\0m\0",
            b"import paddlehub\0",
            b"\0\0\0",
            BROKEN.encode(),
            b"import paddlehub as hub\nx = " + b"(" * 20000,
        ],
        ids=["gbk-first", "gbk-third", "unknown-encoding", "utf-16", "null", "nulls", "python-2", "deep"],
    )
    @pytest.mark.parametrize("name", ["b.py", "b.ipynb"])
    def test_that_cannot_be_read_stops_no_other(self, tmp_path, capsys, bad, name):
        for other in ("a.py", "c.py"):
            (tmp_path / other).write_text(DONE)
        (tmp_path / name).write_bytes(bad)
        assert ftstrat(tmp_path) == 2
        assert [(tmp_path / other).read_text() for other in ("a.py", "c.py")] == [NEW, NEW]
        assert (tmp_path / name).read_bytes() == bad
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["a.py", name, "c.py"])
        printed = capsys.readouterr().out
        assert f"{name}: left as it is: " in printed
        assert "3 files: 2 done, 1 failed" in printed

    def test_that_breaks_the_tool_stops_no_other(self, tmp_path, monkeypatch, capsys):
        from paddle_ftstrat.tools.migrate import imports

        rewrite = imports.rewrite

        def breaks(module, *more):
            if "odd" in module.code:
                raise KeyError("odd")
            return rewrite(module, *more)

        monkeypatch.setattr(imports, "rewrite", breaks)
        for name, text in (("a.py", DONE), ("b.py", DONE + "odd = 1\n"), ("c.py", DONE)):
            (tmp_path / name).write_text(text)
        assert ftstrat(tmp_path) == 2
        assert (tmp_path / "c.py").read_text() == NEW
        assert "b.py: left as it is: an error of this tool: KeyError: 'odd'" in capsys.readouterr().out

    def test_that_cannot_be_written_stops_no_other(self, tmp_path, monkeypatch, capsys):
        from paddle_ftstrat import _files

        replacing = _files.replacing

        def full(path):
            if path.name == "b.py":
                raise OSError(28, "No space left on device")
            return replacing(path)

        monkeypatch.setattr(_files, "replacing", full)
        for name in ("a.py", "b.py", "c.py"):
            (tmp_path / name).write_text(DONE)
        assert ftstrat(tmp_path) == 2
        assert [(tmp_path / name).read_text() for name in ("a.py", "b.py", "c.py")] == [NEW, DONE, NEW]
        assert "No space left on device" in capsys.readouterr().out


def test_all_old_scripts_at_once(tmp_path):
    shutil.copytree(INPUTS, tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    assert ftstrat(tmp_path / "scripts") == 1
    before = {path: path.read_bytes() for path in (tmp_path / "scripts").iterdir()}
    assert len(before) >= 8
    assert ftstrat(tmp_path / "scripts") == 1
    assert {path: path.read_bytes() for path in before} == before
