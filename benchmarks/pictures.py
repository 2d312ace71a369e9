"""The pictures of README and docs that show what the library does, drawn by the library: docs/img/*.png.

PYTHONPATH=. python benchmarks/pictures.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
from paddle import nn
from sklearn.datasets import load_digits

import paddle_ftstrat as hub

FOLDER = Path(__file__).parent.parent / "docs" / "img"


def plan() -> None:
    """The LR of every block under ULMFiT's strategy, and where each is frozen."""
    model = paddle.vision.models.resnet18(num_classes=10)
    strategy = hub.ULMFiTStrategy(learning_rate=1e-3, dis_blocks=4, frz_blocks=4)
    run = strategy.bind(model, num_epoch=8, steps_per_epoch=50, sample_input=paddle.zeros([1, 3, 32, 32]))
    run.plot(FOLDER / "plan.png")


def lr_find() -> None:
    """The LR finder on handwritten digits."""
    x, y = load_digits(return_X_y=True)
    data = paddle.io.TensorDataset([paddle.to_tensor((x / 16).astype("float32")), paddle.to_tensor(y)])
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    learner = hub.Learner(model, data, progress=False)
    learner.lr_find(suggest_funcs=[hub.valley, hub.minimum, hub.steep])
    learner.recorder.plot_lr_find(FOLDER / "lr_find.png")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    paddle.seed(0)
    np.random.seed(0)
    plan()
    lr_find()
