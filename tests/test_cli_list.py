"""`ftstrat list` shows every strategy, curve and optimizer."""

import subprocess
import sys

import pytest

import paddle_ftstrat as hub
from paddle_ftstrat.optim import table
from paddle_ftstrat.schedules import SCHEDULES
from paddle_ftstrat.tools import cli


def test_everything_there_is(capsys):
    assert cli.main(["list"]) == 0
    shown = capsys.readouterr().out
    known = [name for name in hub.__all__ if name.endswith("Strategy")]
    assert {"ULMFiTStrategy", "OneCycleStrategy", "PhasedStrategy"} < set(known)
    for name in (*known, *SCHEDULES, *table.ROWS):
        assert name in shown
    assert "beta1=0.9" in shown
    assert "takes a closure" in " ".join(shown.split())


@pytest.mark.parametrize("module", ["paddle_ftstrat", "paddle_ftstrat.tools.cli"])
def test_as_a_module_and_without_a_command(module, capsys):
    ran = subprocess.run([sys.executable, "-m", module, "list"], capture_output=True, text=True)
    assert ran.returncode == 0
    assert "slanted_triangle" in ran.stdout
    with pytest.raises(SystemExit, match="2"):
        cli.main([])
    assert "COMMAND" in capsys.readouterr().err
