"""Cost of one update next to Paddle's own optimizer of the same formula, and memory over many updates.

    PYTHONPATH=. python benchmarks/bench_optim.py [--quick] [--rounds 30] [--steps 10000]

192 tensors, 0.6 million values. Both optimizers run in turn, in one process; the ratio is the median of each
round's. Times are of the process, on one thread, so that other load does not count.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time

import paddle
from common import report, resident

from paddle_ftstrat.optim import custom, lr_scheduler, optimizers, rules

SHAPES = [(56, 110), (110,)] * 96


def parameters():
    made = [paddle.create_parameter(list(shape), "float32") for shape in SHAPES]
    for param in made:
        (param * paddle.randn(param.shape)).sum().backward()
    return made


class PlainSGD(custom.CustomOptimizer):
    """SGD as a user would write it."""

    def update(self, param, grad, lr, state):
        """p ← p − lr·g."""
        param.subtract_(grad.scale(lr))


def short_sgd(param, grad, lr, state):
    """SGD in the short form."""
    param.subtract_(grad.scale(lr))


class SGDInPaddle(paddle.optimizer.Optimizer):
    """The same rule written for Paddle's base class, without any help."""

    def _append_optimize_op(self, block, param_and_grad):
        param, grad = param_and_grad
        param.subtract_(grad * self._create_param_lr(param_and_grad))


class Stepper:
    """An optimizer whose step moves its LR scheduler too."""

    def __init__(self, optimizer, scheduler):
        self._optimizer, self._scheduler = optimizer, scheduler

    def step(self):
        """One update, and the LR of the next."""
        self._optimizer.step()
        self._scheduler.step()


def falling(optimizer):
    return Stepper(optimizer, lr_scheduler.ExponentialLR(optimizer, 0.999))


def falling_in_paddle(make):
    scheduler = paddle.optimizer.lr.ExponentialDecay(1e-3, 0.999)
    return Stepper(make(scheduler), scheduler)


def pairs():
    """Name → (ours, Paddle's), each a function parameters → something with step()."""
    own, short = paddle.optimizer, custom.from_function(short_sgd)
    return {
        "SGD": (lambda p: optimizers.SGD(p, 1e-3), lambda p: own.SGD(1e-3, p)),
        "SGD weight_decay": (
            lambda p: optimizers.SGD(p, 1e-3, weight_decay=0.01),
            lambda p: own.SGD(1e-3, p, weight_decay=0.01),
        ),
        "SGD momentum": (lambda p: optimizers.SGD(p, 1e-3, momentum=0.9), lambda p: own.Momentum(1e-3, 0.9, p)),
        "SGD momentum, LR falling": (
            lambda p: falling(optimizers.SGD(p, 1e-3, momentum=0.9)),
            lambda p: falling_in_paddle(lambda lr: own.Momentum(lr, 0.9, p)),
        ),
        "Adagrad": (lambda p: optimizers.Adagrad(p, 1e-3), lambda p: own.Adagrad(1e-3, 1e-10, p)),
        "RMSprop": (lambda p: optimizers.RMSprop(p, 1e-3), lambda p: own.RMSProp(1e-3, 0.99, 1e-8, parameters=p)),
        "Adam": (lambda p: optimizers.Adam(p, 1e-3), lambda p: own.Adam(1e-3, parameters=p)),
        "Adam two groups": (
            lambda p: optimizers.Adam([{"params": p[:96]}, {"params": p[96:], "lr": 1e-4}], 1e-3),
            lambda p: own.Adam(1e-3, parameters=p),
        ),
        "AdamW": (lambda p: optimizers.AdamW(p, 1e-3, weight_decay=0.01), lambda p: own.AdamW(1e-3, parameters=p)),
        "LAMB": (lambda p: optimizers.LAMB(p, 1e-3), lambda p: own.Lamb(1e-3, 0.0, always_adapt=True, parameters=p)),
        "custom, class form": (lambda p: PlainSGD(1e-3, p), lambda p: SGDInPaddle(1e-3, p)),
        "custom, short form": (lambda p: short(1e-3, p), lambda p: SGDInPaddle(1e-3, p)),
    }


def compare(make_ours, make_theirs, rounds):
    ours, theirs = make_ours(parameters()), make_theirs(parameters())
    times = {"ours": [], "paddle": []}
    for number in range(rounds + 3):
        for name, optimizer in (("ours", ours), ("paddle", theirs)):
            start = time.process_time()
            for _ in range(5):
                optimizer.step()
            if number >= 3:
                times[name].append((time.process_time() - start) / 5)
    ratios = [ours / theirs for ours, theirs in zip(times["ours"], times["paddle"])]
    return {
        "ours_ms": round(1e3 * statistics.median(times["ours"]), 3),
        "paddle_ms": round(1e3 * statistics.median(times["paddle"]), 3),
        "ratio": round(statistics.median(ratios), 3),
    }


def settled():
    """Resident memory once nothing is left to collect, in bytes."""
    gc.collect()
    return resident()


def growth(make, steps):
    """Resident memory that `steps` updates with a new LR each add, in MiB; small tensors, so that it is quick."""
    made = [paddle.create_parameter([8, 8], "float32") for _ in range(4)]
    for param in made:
        (param * 0.01).sum().backward()
    optimizer = make(made)

    def run(count):
        for step in range(count):
            optimizer.set_lr(1e-3 / (1 + step % 1000))
            optimizer.step()

    run(1000)
    before = settled()
    run(steps)
    return round((settled() - before) / 2**20, 3)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds and steps: a smoke test")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--steps", type=int, default=10000)
    options = parser.parse_args()
    rounds, steps = (3, 200) if options.quick else (options.rounds, options.steps)
    paddle.seed(0)
    results = {
        "tensors": len(SHAPES),
        "values": sum(paddle.to_tensor(shape).prod().item() for shape in SHAPES),
        "step": {name: compare(*makers, rounds) for name, makers in pairs().items()},
        "growth_mib": {
            "steps": steps,
            "SGD": growth(lambda p: optimizers.SGD(p, 1e-3, momentum=0.9), steps),
            "Adam": growth(lambda p: optimizers.Adam(p, 1e-3), steps),
            "LAMB": growth(lambda p: optimizers.LAMB(p, 1e-3, weight_decay=0.01), steps),
            "Lion": growth(lambda p: rules.Lion(1e-3, parameters=p), steps),
        },
    }
    report("quick_optim" if options.quick else "optim", results)


if __name__ == "__main__":
    main()
