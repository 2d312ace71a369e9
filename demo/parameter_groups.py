"""Code written for OneFlow's or torch's optim, with the import changed: groups, clipping by group, StepLR, resume.

python demo/parameter_groups.py
"""

from __future__ import annotations

import argparse

import numpy as np
import paddle
from paddle import nn

from paddle_ftstrat import optim


def main() -> None:
    """Train two groups with an LR each, save in the middle, and go on in new objects."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few updates: a smoke test")
    epochs = 4 if parser.parse_args().quick else 40

    paddle.seed(0)
    np.random.seed(0)
    x = paddle.randn([128, 8])
    y = (x[:, :3].sum(-1) > 0).astype("int64")
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 2))

    def training() -> tuple[optim.Optimizer, optim.lr_scheduler.StepLR]:
        groups = [
            {"params": model[0].parameters(), "lr": 0.05, "clip_grad_max_norm": 1.0},
            {"params": model[2].parameters(), "weight_decay": 0.0},
        ]
        optimizer = optim.AdamW(groups, lr=0.2, weight_decay=0.01)
        return optimizer, optim.lr_scheduler.StepLR(optimizer, step_size=epochs // 4, gamma=0.5)

    optimizer, scheduler = training()
    for epoch in range(epochs):
        if epoch == epochs // 2:
            saved = optimizer.state_dict(), scheduler.state_dict()
            optimizer, scheduler = training()
            optimizer.load_state_dict(saved[0])
            scheduler.load_state_dict(saved[1])
            print(f"epoch {epoch}: went on in a new optimizer and scheduler")
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.clip_grad()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        if (epoch + 1) % max(1, epochs // 8) == 0:
            lrs = ", ".join(f"{group['lr']:.4f}" for group in optimizer.param_groups)
            print(f"epoch {epoch + 1}: loss {float(loss):.4f}, learning rates {lrs}")


if __name__ == "__main__":
    main()
