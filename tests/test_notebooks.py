"""The notebooks run from top to bottom, and are kept without what they printed."""

import json
from pathlib import Path
from unittest import mock

import pytest

from paddle_ftstrat.optim import table
from paddle_ftstrat.schedules import SCHEDULES

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


def cells(notebook):
    return [cell for cell in json.loads(notebook.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_notebook_runs(notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOKS[0].parent.parent))
    names = {"__name__": notebook.stem}
    # What a notebook registers is gone when it ends.
    with mock.patch.dict(SCHEDULES), mock.patch.dict(table.ROWS):
        for cell in cells(notebook):
            exec(compile("".join(cell["source"]), str(notebook), "exec"), names)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped(notebook):
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells(notebook))
