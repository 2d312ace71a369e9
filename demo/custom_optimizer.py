"""Your own optimizer in ten lines, with everything that a strategy gives: Lion, in the short form and as a class.

    python demo/custom_optimizer.py [--quick]

Both forms train the same small classifier under the same strategy (warmup, linear decay, decoupled weight decay, LR by
depth, clipping) and end at the same weights; AdamW runs beside them. A checkpoint in the middle goes on bit-equal.
"""

import argparse
import time

import numpy as np
import paddle
from paddle import nn

import paddle_ftstrat as hub
from paddle_ftstrat.optim.custom import CustomOptimizer
from paddle_ftstrat.optim.table import register


def lion(param, grad, lr, state, beta1=0.9, beta2=0.99):
    """The short form: change `param` and `state` in place. What follows `state` becomes an option."""
    moment = state["moment"]
    param.subtract_(paddle.sign(moment * beta1 + grad * (1 - beta1)) * lr)
    moment.scale_(beta2).add_(grad * (1 - beta2))


class LionClass(CustomOptimizer):
    """The class form: the same, written as for any Paddle optimizer."""

    accumulators = ("moment",)

    def __init__(self, learning_rate=1e-4, beta1=0.9, beta2=0.99, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.beta1, self.beta2 = beta1, beta2

    def _append_optimize_op(self, block, param_and_grad):
        param, grad = param_and_grad
        moment, lr = self.state_of(param)["moment"], self.lr_of(param)
        param.subtract_(paddle.sign(moment * self.beta1 + grad * (1 - self.beta1)) * lr)
        moment.scale_(self.beta2).add_(grad * (1 - self.beta2))


def spirals(count):
    """Two spirals, [count, 2] and their classes: no straight line parts them."""
    rng = np.random.default_rng(0)
    label = np.arange(count) % 2
    turn = rng.uniform(0.5, 2.5, count) * np.pi
    points = turn[:, None] * np.stack([np.cos(turn + np.pi * label), np.sin(turn + np.pi * label)], 1) / 8
    points += rng.normal(scale=0.02, size=points.shape)
    return paddle.to_tensor(points, "float32"), paddle.to_tensor(label)


def classifier():
    """A small network, the same each time."""
    paddle.seed(0)
    return nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.LayerNorm(64), nn.Linear(64, 2))


def strategy(optimizer, lr):
    """The same recipe for any optimizer."""
    return hub.CombinedStrategy(
        optimizer_name=optimizer,
        learning_rate=lr,
        scheduler={"warmup": 0.1, "linear_decay": {"start_point": 0.1}, "discriminative": {"blocks": 2, "factor": 1.5}},
        regularization={"weight_decay": 0.1},
        clip={"GlobalNorm": 1.0},
    )


def train(run, steps, first=0):
    """Updates `first` to `steps`; returns the accuracy."""
    x, y = spirals(512)
    for number in range(first, steps):
        batch = slice(64 * (number % 8), 64 * (number % 8 + 1))
        nn.functional.cross_entropy(run.model(x[batch]), y[batch]).backward()
        run.step()
    return (run.model(x).argmax(1) == y).astype("float32").mean().item()


def same(left, right):
    """Whether two models are equal to the last bit."""
    return all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(left.parameters(), right.parameters()))


def main():
    """Train, compare, stop and resume."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer updates")
    steps = 120 if parser.parse_args().quick else 600

    register("lion-short", lion, accumulators=["moment"])
    register("lion-class", LionClass)
    models = {}
    for name, lr in (("lion-short", 3e-3), ("lion-class", 3e-3), ("lion", 3e-3), ("adamw", 1e-2)):
        start = time.perf_counter()
        run = strategy(name, lr).bind(classifier(), max_train_steps=steps)
        accuracy = train(run, steps)
        models[name] = run.model
        print(f"{name:10}  accuracy {accuracy:.3f}  in {time.perf_counter() - start:.1f} s")
    print("short and class form end at the same weights:", same(models["lion-short"], models["lion-class"]))

    half = strategy("lion-short", 3e-3).bind(classifier(), max_train_steps=steps)
    train(half, steps // 2)
    resumed = strategy("lion-short", 3e-3).bind(classifier(), max_train_steps=steps)
    resumed.model.set_state_dict(half.model.state_dict())
    resumed.set_state_dict(half.state_dict())
    train(resumed, steps, first=steps // 2)
    print("stopped and resumed in the middle, too:", same(models["lion-short"], resumed.model))


if __name__ == "__main__":
    main()
