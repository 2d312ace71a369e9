"""Install and train: a strategy in a loop of one's own, a Learner that is broken off and goes on, weights out and in.

python .ci/smoke.py       outside the checkout, in the environment to try
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import paddle_ftstrat as hub  # isort: skip - before Paddle
import numpy as np
import paddle
from paddle import nn


def net() -> nn.Layer:
    """Three layers, the same each time."""
    paddle.seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))


class Stop(hub.Callback):
    """Breaks a fit off after some updates."""

    def __init__(self, updates: int) -> None:
        self.left = updates

    def on_after_update(self, learner: hub.Learner) -> None:
        """Count down."""
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def main() -> None:
    """Try it, and say what it was tried on."""
    x = np.random.default_rng(0).normal(size=[64, 4]).astype("float32")
    data = [(row, np.int64(row.sum() > 0)) for row in x]
    run = hub.ULMFiTStrategy(1e-2).bind(net(), num_epoch=3, steps_per_epoch=4, sample_input=paddle.ones([1, 4]))
    for _ in range(3):
        run.begin_epoch()
        for first in range(0, 64, 16):
            run.model(paddle.to_tensor(x[first : first + 16])).square().mean().backward()
            run.step()
    with tempfile.TemporaryDirectory() as folder:

        def fitted(checkpoints: str, *cbs: hub.Callback) -> nn.Layer:
            np.random.seed(0)
            saved = hub.Checkpoints(Path(folder) / checkpoints, every=1)
            learner = hub.Learner(net(), data, batch_size=16, progress=False, checkpoints=saved)
            learner.fit(3, strategy=hub.L2SPFinetuneStrategy(1e-2), pretrained="*", cbs=list(cbs))
            return learner.model

        whole = fitted("whole")
        try:
            fitted("broken off", Stop(5))
        except KeyboardInterrupt:
            model = fitted("broken off")
        for name, value in whole.state_dict().items():
            np.testing.assert_array_equal(value.numpy(), model.state_dict()[name].numpy(), err_msg=name)
        hub.save_pretrained(model, Path(folder) / "saved")
        print(hub.load_pretrained(net(), Path(folder) / "saved"))
    place, numpy = Path(hub.__file__).parent.parent.name, np.__version__
    print(f"paddle_ftstrat {hub.__version__} of {place} works on paddlepaddle {paddle.__version__}, numpy {numpy}")


if __name__ == "__main__":
    main()
