"""A strategy inside `paddle.Model.fit`: LR per batch and thawing per epoch through one callback.

python demo/paddle_model_fit.py
"""

from __future__ import annotations

import argparse

import numpy as np
import paddle
from paddle import nn
from paddle.io import TensorDataset
from paddle.metric import Accuracy

import paddle_ftstrat as hub


def main() -> None:
    """Prepare a paddle.Model with the binding's optimizer and fit it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short epoch per block: a smoke test")
    samples = 64 if parser.parse_args().quick else 1024

    paddle.seed(0)
    np.random.seed(0)
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))
    x = paddle.randn([samples, 16])
    train = TensorDataset([x, (x[:, :4].sum(-1, keepdim=True) > 0).astype("int64")])
    run = hub.ULMFiTStrategy(learning_rate=1e-2).bind(net, num_epoch=4, steps_per_epoch=samples // 32)
    model = paddle.Model(net)
    model.prepare(run.optimizer, nn.CrossEntropyLoss(), Accuracy())
    model.fit(train, batch_size=32, epochs=4, verbose=2, callbacks=[run.callback()])
    print("accuracy:", model.evaluate(train, batch_size=32, verbose=0)["acc"])


if __name__ == "__main__":
    main()
