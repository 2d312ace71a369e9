"""Pictures where Paddle breaks zlib: an error that says what to do, never a crash."""

import subprocess
import sys

import pytest

PLOT = (
    "import paddle_ftstrat as hub; "
    "hub.DefaultStrategy(0.1).bind(paddle.nn.Linear(1, 1)).plot('plan.png', steps=3); print('drawn')"
)


@pytest.mark.parametrize(
    ("first", "drawn"),
    [
        ("import zlib, paddle", True),
        ("import paddle_ftstrat, paddle", True),
        ("import numpy, paddle", None),
        ("import paddle", None),
    ],
)
def test_a_picture_or_an_error(first, drawn, tmp_path):
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{first}; {PLOT}"], cwd=tmp_path, capture_output=True, text=True
    )
    if "drawn" in ran.stdout:
        assert (tmp_path / "plan.png").stat().st_size > 5_000
    else:
        assert not drawn
        assert ran.returncode == 1, f"crashed with {ran.returncode}"
        assert "put `import zlib` before `import paddle`" in ran.stderr
