"""Notebooks and scripts made of them: their code is rewritten, all else stays byte by byte."""

import json

import pytest

pytest.importorskip("libcst", reason="the tool needs LibCST")

from paddle_ftstrat.tools import cli
from paddle_ftstrat.tools.migrate import ipython, rewriter
from paddle_ftstrat.tools.migrate.site import comment

CELLS = [
    "# 微调\n",
    "!hub install ernie==1.0\n%matplotlib inline",
    "import paddlehub as hub\nfiles = !ls\nimport paddle.fluid as fluid",
    "%%bash\nhub install ernie\nprint 'not Python'",
    "",
    "%%time\nstrategy = hub.AdamWeightDecayStrategy()\nfor _ in range(2):\n    !echo \\\n      paddlehub",
    "module = hub.Module(name='ernie')  # the model\n\n",
    "x = (4\n% 3)\nhub?",
]


def notebook(cells=CELLS, as_lists=True, **style):
    """A notebook's text, written as Jupyter does unless told otherwise."""

    def code(text, number):
        return {
            "cell_type": "code",
            "execution_count": number,
            "metadata": {"tags": ["学习率"]},
            "outputs": [{"name": "stdout", "output_type": "stream", "text": ["import paddlehub as hub\n"]}],
            "source": text.splitlines(True) if as_lists else text,
        }

    prose = {"cell_type": "markdown", "metadata": {}, "source": ["import paddlehub as hub\n", "# 说明"]}
    found = [prose, *(code(text, number) for number, text in enumerate(cells, 1))]
    value = {"cells": found, "metadata": {"kernelspec": {"name": "python3"}}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(value, **{"indent": 1, "ensure_ascii": False, **style}) + "\n"


def sources(code):
    return ["".join(cell["source"]) for cell in json.loads(code)["cells"] if cell["cell_type"] == "code"]


def ftstrat(*arguments):
    return cli.main(["migrate", *map(str, arguments)])


def test_cells_are_rewritten_as_one_script():
    result = rewriter.migrate_notebook(notebook().encode())
    new = sources(result.code)
    assert len(new) == len(CELLS)
    assert new[0] == CELLS[0]
    assert new[1].endswith(CELLS[1])
    assert new[1].startswith("# TODO(ftstrat): delete: PaddleHub is not needed")
    assert new[2] == "import paddle_ftstrat as hub\nfiles = !ls"
    assert new[3:5] == CELLS[3:5]
    assert new[5] == CELLS[5].replace("Strategy()", "Strategy(warmup_proportion=0.1)")
    assert new[6].endswith(CELLS[6])
    assert "AutoModelForSequenceClassification.from_pretrained('ernie-1.0-base-zh'" in new[6].replace("\n#     ", " ")
    assert new[7] == CELLS[7]
    assert [note.line for note in result.left] == [2, 7]
    assert {note.line for note in result.rewritten} == {3, 6}


def test_a_second_run_changes_nothing():
    once = rewriter.migrate_notebook(notebook().encode())
    twice = rewriter.migrate_notebook(once.code)
    assert twice.code == once.code
    assert twice.left == once.left
    assert not twice.rewritten


@pytest.mark.parametrize("as_lists", [True, False])
@pytest.mark.parametrize(
    "style",
    [{}, {"ensure_ascii": True}, {"indent": None}, {"indent": 2}, {"indent": 4}, {"sort_keys": True}],
    ids=str,
)
def test_all_but_the_code_stays_as_it_was_written(style, as_lists):
    old = notebook(["import paddlehub as hub\nhub.RunConfig()", "'学习率'"], as_lists, **style)
    new = rewriter.migrate_notebook(old.encode()).code.decode()
    assert new != old
    assert new == notebook(["import paddle_ftstrat as hub\nhub.RunConfig()", "'学习率'"], as_lists, **style)


def test_a_notebook_without_paddlehub_stays_byte_by_byte():
    old = notebook(["!pip install x", "%time 1 + 1"]).replace("\n", " \n", 1).encode()
    result = rewriter.migrate_notebook(old)
    assert (result.code, result.rewritten, result.left) == (old, (), ())


def test_a_cell_that_is_no_python_is_named():
    old = notebook(["x = 1", "%%time\n!ls\nprint 'x'"]).encode()
    with pytest.raises(ValueError, match="code cell 2: not Python 3: line 3: Missing parentheses"):
        rewriter.migrate_notebook(old)


def test_a_needed_import_goes_into_a_cell_of_python():
    cells = ["%%bash\nls", "%%time\nx = 1", "import paddle.fluid as fluid\nplace = fluid.CPUPlace()"]
    new = sources(rewriter.migrate_notebook(notebook(cells).encode()).code)
    assert new[0] == cells[0]
    assert new[1].startswith("%%time\n")
    assert "import paddle\n" in "\n".join(new[1:])
    assert new[2].endswith("place = paddle.CPUPlace()")


def test_a_folder_of_notebooks(tmp_path, capsys):
    (tmp_path / "a.ipynb").write_text(notebook(), "utf-8")
    (tmp_path / "b.ipynb").write_text(notebook(["x = 1"]), "utf-8")
    (tmp_path / "c.ipynb").write_text("{", "utf-8")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / ".ipynb_checkpoints" / "a.ipynb").write_text(notebook(), "utf-8")
    assert ftstrat(tmp_path) == 2
    printed = capsys.readouterr().out
    assert "a.ipynb: rewritten, 2 places left to do by hand" in printed
    assert "  rewritten (code cells of the old text)\n    code cell    3  import paddlehub as hub" in printed
    assert "c.ipynb: left as it is: not a notebook of Jupyter's format 4" in printed
    assert (tmp_path / "b.ipynb").read_text("utf-8") == notebook(["x = 1"])
    assert (tmp_path / ".ipynb_checkpoints" / "a.ipynb").read_text("utf-8") == notebook()


class TestScriptsMadeOfNotebooks:
    CODE = (
        "!hub install ernie==1.0\n%matplotlib inline\nimport paddlehub as hub\nif True:\n    !ls \\\n      -l\n"
        "names = !ls\nconfig = hub.RunConfig(use_pyreader=False)\n"
    )

    def test_lines_of_ipython_stay(self):
        result = rewriter.migrate(self.CODE.encode())
        todo = "\n".join(comment(result.left[0].text)) + "\n"
        new = self.CODE.replace("import paddlehub", "import paddle_ftstrat").replace("use_pyreader=False", "")
        assert result.code.decode() == todo + new
        assert result.left[0].text.startswith("delete: PaddleHub is not needed")
        again = rewriter.migrate(result.code)
        assert (again.code, again.left) == (result.code, result.left)

    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    @pytest.mark.parametrize("encoding", ["utf-8", "gbk", "utf-8-sig"])
    def test_in_every_encoding(self, encoding, end):
        text = f"# coding: {encoding.removesuffix('-sig')}\n!echo 学习率\nimport paddlehub as hub\nhub.RunConfig()\n"
        text = text.replace("\n", end)
        new = rewriter.migrate(text.encode(encoding)).code
        assert new == text.replace("paddlehub", "paddle_ftstrat").encode(encoding)

    @pytest.mark.parametrize(
        "line",
        [
            "!pip install -U paddlehub",
            "%pip install paddlehub==1.8",
            "!python -m pip install paddlehub",
            "! hub install x",
        ],
    )
    def test_what_installs_paddlehub_is_said(self, line):
        left = rewriter.migrate(f"{line}\nimport paddlehub as hub\nhub.RunConfig()\n".encode()).left
        assert [note.line for note in left] == [1]

    def test_what_is_wrong_for_another_reason_is_told_of_the_script(self):
        with pytest.raises(ValueError, match="line 3: Missing parentheses"):
            rewriter.migrate(b"!ls\nimport paddlehub\nprint 'x'\n")


@pytest.mark.parametrize(
    "line", ["!ls", "%time f(1)", "?print", "print?", "x, y = !ls", "self.x = %time 3", "  !ls \\\n -l"]
)
def test_hidden_lines_come_back(line):
    code = f"if 1:\n    a = 1\n{line}\nb = 2\n".replace("  !", "    !")
    hidden = []
    masked = ipython.hide(code.encode(), hidden)
    compile(masked, "masked", "exec")
    assert ipython.show(masked.decode(), hidden) == code
