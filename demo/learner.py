"""fastai's way on Paddle: find a learning rate, fit one cycle, fine-tune, look at the pictures.

    python demo/learner.py

Trains a small network on scikit-learn's digits and writes lr_find.png, sched.png and loss.png.
"""

from __future__ import annotations

import argparse

import numpy as np
import paddle
from paddle import nn
from paddle.io import TensorDataset
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import paddle_ftstrat as hub


def data() -> tuple[TensorDataset, TensorDataset]:
    """Pictures as vectors of 64 values in [0, 1], and their digits."""
    x, y = load_digits(return_X_y=True)
    splits = train_test_split((x / 16).astype("float32"), y, test_size=400, stratify=y, random_state=0)
    train_x, valid_x, train_y, valid_y = map(paddle.to_tensor, splits)
    return TensorDataset([train_x, train_y]), TensorDataset([valid_x, valid_y])


def main() -> None:
    """Find, fit, fine-tune, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one epoch each: a smoke test")
    epochs = 1 if parser.parse_args().quick else 8

    paddle.seed(0)
    np.random.seed(0)
    train, valid = data()
    model = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)
    )
    learner = hub.Learner(model, train, valid, metrics=["acc", "f1"])
    found = learner.lr_find(suggest_funcs=[hub.valley, hub.slide, hub.minimum])
    print("suggested:", ", ".join(f"{name} {lr:.2e}" for name, lr in found._asdict().items()))

    result = learner.fit_one_cycle(epochs, found.valley)[-1]
    print(f"one cycle:  accuracy {result['acc']:.3f}, f1 {result['f1']:.3f}")
    learner.recorder.plot_sched(path="sched.png")
    result = learner.fine_tune(epochs, base_lr=found.valley)[-1]
    print(f"fine_tune:  accuracy {result['acc']:.3f}, f1 {result['f1']:.3f}")
    learner.recorder.plot_lr_find("lr_find.png")
    learner.recorder.plot_loss(path="loss.png")
    print("pictures: lr_find.png, sched.png, loss.png")


if __name__ == "__main__":
    main()
