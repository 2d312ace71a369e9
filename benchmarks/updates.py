"""One update by each of the ways, in a process of its own with so many cores; prints milliseconds as JSON.

    python updates.py TENSORS SHAPE ROUNDS CORES
    python updates.py --worker WAY TENSORS SHAPE CORES      "fused" or "torch", in turns that workers.py asks for

clip by global norm + L2SP + LR multipliers + Adam composed of Paddle's operations, ours unfused and fused; Paddle's
AdamW alone; a triad a = b + c·s over as many values, which is what the memory allows; and the two things that the fused
update cannot leave out, each by itself: "asking" every tensor where it lies, whether it trains and what is set for it,
and the "passes" over the values with all of that known. Each way in turn with the others,
so that its weights have left the processor's caches as after a forward and backward; where they are few, also three to
ten updates in a row (`…_in_a_row`), as an optimizer by itself is usually timed.
"torch", for a Python that has torch and no Paddle: torch's fused AdamW with its clip by global norm, without L2SP.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from typing import Any

LR, L2SP, CLIP, STEPS = 1e-4, 1e-3, 1.0, 5
# With more values than this nothing stays in the caches from one update to the next.
FEW, FEW_TENSORS = 2**21, 2_000


def serve_one(way: str, count: int, shape: list[int], cores: int) -> None:
    """Make `steps` updates by one way whenever asked to (see `workers`)."""
    import workers

    if way == "torch":
        workers.serve(_torch(count, shape, cores), STEPS)
        return
    import paddle_ftstrat as hub

    with hub.cpu_threads(cores):
        workers.serve(_ours(_weights(count, shape), fused=True), STEPS)


def _torch(count: int, shape: list[int], cores: int) -> Callable[[], None]:
    import torch

    torch.set_num_threads(cores)
    params = [torch.nn.Parameter(torch.rand(shape)) for _ in range(count)]
    for param in params:
        param.grad = torch.full(shape, 1e-3)
    optimizer = torch.optim.AdamW(params, LR, fused=True)

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(params, CLIP)
        optimizer.step()

    return update


def with_paddle(count: int, shape: list[int], rounds: int, cores: int) -> dict[str, float]:
    """Milliseconds of Paddle's and of our updates, and of the triad."""
    from common import interleaved

    import paddle_ftstrat as hub

    ways = {
        "composed": _composed,
        "adamw": _adamw,
        "unfused": lambda model: _ours(model, fused=False),
        "fused": lambda model: _ours(model, fused=True),
        "asking": _asking,
        "passes": _passes,
    }
    runs = {way: make(_weights(count, shape)) for way, make in ways.items()}
    values = count * math.prod(shape)
    runs["triad"] = _triad(values, cores)
    with hub.cpu_threads(cores):
        times = interleaved(runs, rounds)
        if values < FEW:
            in_a_row = interleaved(runs, 9, repeat=10 if count < FEW_TENSORS else 3)
            times.update({f"{name}_in_a_row": seconds for name, seconds in in_a_row.items()})
    return {name: 1e3 * seconds for name, seconds in times.items()}


def _weights(count: int, shape: list[int]) -> Any:
    """Nothing but parameters, with gradients that stay."""
    import paddle

    model = paddle.nn.Layer()
    for index in range(count):
        param = model.create_parameter(shape)
        model.add_parameter(f"w{index}", param)
        param.grad = paddle.full(shape, 1e-3)
    return model


def _composed(model: Any) -> Callable[[], None]:
    import paddle

    from paddle_ftstrat.optim.regularizer import L2SPDecay

    params = model.parameters()
    for index, param in enumerate(params):
        param.optimize_attr = {"learning_rate": 0.5 if 2 * index < len(params) else 1.0}
        param.regularizer = L2SPDecay(L2SP, param.detach().clone())
    return paddle.optimizer.Adam(LR, parameters=params, grad_clip=paddle.nn.ClipGradByGlobalNorm(CLIP)).step


def _adamw(model: Any) -> Callable[[], None]:
    import paddle

    return paddle.optimizer.AdamW(LR, parameters=model.parameters()).step


def _ours(model: Any, fused: bool) -> Callable[[], None]:
    import paddle_ftstrat as hub

    strategy = hub.CombinedStrategy("adam", LR, regularization={"L2SP": L2SP}, clip={"GlobalNorm": CLIP})
    names = [name for name, _ in model.named_parameters()]
    lower = dict.fromkeys(names[: len(names) // 2], 0)
    strategy.add_scheduler("discriminative", params_layer={**dict.fromkeys(names, 1), **lower}, factor=2.0)
    run = strategy.bind(model, pretrained="*", fused=fused)
    return run.optimizer.step


def _asking(model: Any) -> Callable[[], None]:
    from paddle_ftstrat._paddle import pointers
    from paddle_ftstrat.param_attr import settings

    params = model.parameters()
    shapes = [param.shape for param in params]

    def ask() -> None:
        seen = pointers.glance(params, settings.ROWS)
        pointers.gradient_addresses(seen.grads, shapes)
        pointers.mark_changed(params)

    return ask


def _passes(model: Any) -> Callable[[], None]:
    step = _ours(model, fused=True)
    step()
    return lambda: step._run(step._params)


def _triad(values: int, cores: int) -> Callable[[], None]:
    import numba
    import numpy as np

    from paddle_ftstrat.optim.fused import kernels

    a, b, c = (np.ones(values, np.float32) for _ in range(3))

    @numba.njit(nogil=True, error_model="numpy")
    def part(a: Any, b: Any, c: Any, first: int, last: int) -> None:
        # Indices from 0 on, or numba asks of each whether it is negative, and nothing is done eight at a time.
        a, b, c = a[first:last], b[first:last], c[first:last]
        for k in range(len(a)):
            a[k] = b[k] + np.float32(0.5) * c[k]

    threads = kernels.threads_for(values, cores)
    ends = [values * share // threads for share in range(threads + 1)]
    ranges = list(zip(ends, ends[1:]))
    return lambda: kernels.run(lambda b, c, first, last, a: part(a, b, c, first, last), b, c, ranges, a)


def main() -> None:
    """Measure and print."""
    if sys.argv[1] == "--worker":
        way, arguments = sys.argv[2], sys.argv[3:]
    else:
        way, arguments = None, sys.argv[1:]
    *sizes, cores = map(json.loads, arguments)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    if way is not None:
        serve_one(way, *sizes, cores)
    else:
        print(json.dumps(with_paddle(*sizes, cores)))


if __name__ == "__main__":
    main()
