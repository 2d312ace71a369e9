"""Training in several processes: who is who, and what they tell each other.

The model is not wrapped in `paddle.DataParallel`, under which a change of the trainable set diverges silently or
crashes. Instead the gradients of the trainable parameters are reduced between backward and update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import paddle
from paddle import distributed, nn
from paddle.distributed.fleet.utils.hybrid_parallel_util import fused_allreduce_gradients

from paddle_ftstrat._paddle import layers


class Ranks(NamedTuple):
    """Which process this is (`rank`, from 0), of how many (`world`)."""

    rank: int
    world: int

    @property
    def is_distributed(self) -> bool:
        """Whether there is any other process."""
        return self.world > 1

    @property
    def is_main_process(self) -> bool:
        """Whether this is the process that writes files and log lines."""
        return self.rank == 0


ONE = Ranks(0, 1)


def ranks(use: bool = True) -> Ranks:
    """The processes that `python -m paddle.distributed.launch` started together, connected to each other.

    Args:
        use: False: this process works alone, whatever was started.
    """
    if not use or distributed.get_world_size() < 2:
        return ONE
    if not distributed.is_initialized():
        distributed.init_parallel_env()
    return Ranks(distributed.get_rank(), distributed.get_world_size())


def synchronize(model: nn.Layer, dist: Ranks) -> None:
    """Give all processes the first one's weights and buffers."""
    if dist.is_distributed:
        with paddle.no_grad():
            for value in model.state_dict().values():
                distributed.broadcast(value, src=0)


def same_everywhere(facts: Mapping[str, Any], dist: Ranks) -> None:
    """Check that all processes are about to do the same.

    Raises:
        ValueError: they are not; the error names the facts that differ. It is raised on every process.
    """
    if not dist.is_distributed:
        return
    everyone = gather_facts(facts, dist)
    differ = {key for other in everyone for key in {**facts, **other} if other.get(key) != everyone[0].get(key)}
    if differ:
        shown = {key: [other.get(key) for other in everyone] for key in sorted(differ)}
        raise ValueError(f"the processes differ: {shown} (one value per rank); start them all with the same script")


def gather_facts(facts: Any, dist: Ranks) -> list[Any]:
    """What each process has to say, in order of rank."""
    if not dist.is_distributed:
        return [facts]
    everyone: list[Any] = []
    distributed.all_gather_object(everyone, facts)
    return everyone


def joined_rows(tree: Any, count: int, dist: Ranks) -> Any:
    """Outputs or labels of all processes as one: of each tensor the first `count` rows, joined in order of rank.

    The number of rows may differ from process to process, the rest of the shape not.
    """

    def joined(value: Any) -> Any:
        if not isinstance(value, paddle.Tensor) or not value.ndim:
            return value
        rows = value[:count]
        counts = gather_facts(rows.shape[0], dist)
        missing = max(counts) - rows.shape[0]
        if missing:
            rows = paddle.concat([rows, paddle.zeros([missing, *rows.shape[1:]], dtype=rows.dtype)])
        parts: list[Any] = []
        distributed.all_gather(parts, rows)
        return paddle.concat([part[:number] for part, number in zip(parts, counts)])

    return mapped(joined, tree)


def mapped(function: Callable[..., Any], *trees: Any) -> Any:
    """Nested dicts and tuples of what a function makes of the leaves of trees that are alike.

    Example:
        >>> mapped(max, {"a": [1, 5], "b": 2}, {"a": [3, 4], "b": 6})
        {'a': (3, 5), 'b': 6}
    """
    if isinstance(trees[0], Mapping):
        return {key: mapped(function, *(tree[key] for tree in trees)) for key in trees[0]}
    if isinstance(trees[0], (list, tuple)):
        return tuple(mapped(function, *leaves) for leaves in zip(*trees))
    return function(*trees)


def added(numbers: Sequence[float], dist: Ranks) -> list[float]:
    """Each number summed over all processes, in double precision."""
    if not dist.is_distributed:
        return list(numbers)
    total = paddle.to_tensor(np.asarray(numbers, dtype="float64"))
    distributed.all_reduce(total)
    return total.numpy().tolist()


def reduce_gradients(params: Iterable[Any], dist: Ranks) -> None:
    """Average the gradients over all processes.

    A parameter that got a gradient somewhere gets one everywhere; where it has none, 0 is averaged in.

    Raises:
        ValueError: a sparse gradient, which cannot be averaged.
    """
    if not dist.is_distributed:
        return
    params = [param for param in params if not param.stop_gradient]
    anywhere = added([float(param.grad is not None) for param in params], dist)
    taking_part = [param for param, count in zip(params, anywhere) if count]
    for param in taking_part:
        if param.grad is None:
            param.grad = paddle.zeros_like(param)
        elif param.grad.is_selected_rows():
            raise ValueError(
                f"the gradient of {param.name} is sparse, which several processes cannot average: "
                "build its Embedding with sparse=False"
            )
    if taking_part:
        fused_allreduce_gradients(taking_part, None)


def average_statistics(model: nn.Layer, dist: Ranks) -> None:
    """Average the running statistics of BatchNorm layers that train, so that all processes keep the same."""
    moving = layers.moving_statistics(model) if dist.is_distributed else []
    if not moving:
        return
    with paddle.no_grad():
        flat = paddle.concat([stat.reshape([-1]).astype("float32") for stat in moving])
        distributed.all_reduce(flat)
        for stat, mean in zip(moving, paddle.split(flat / dist.world, [stat.size for stat in moving])):
            stat.set_value(mean.reshape(stat.shape).astype(stat.dtype))


def wait_for_all(dist: Ranks) -> None:
    """Go on when all processes have come here."""
    if dist.is_distributed:
        distributed.barrier()


def check_loader(loader: Any, length: int, what: str, dist: Ranks) -> None:
    """Refuse users' loaders that give every process the same batches, or not every process equally many.

    Raises:
        ValueError: one has no `paddle.io.DistributedBatchSampler`, or the lengths differ; on every process.
    """
    if not dist.is_distributed:
        return
    sharded = isinstance(getattr(loader, "batch_sampler", None), paddle.io.DistributedBatchSampler)
    everyone = gather_facts([sharded, length], dist)
    lengths = [length for _, length in everyone]
    if len(set(lengths)) > 1:
        raise ValueError(
            f"{what}: the processes' DataLoaders have {lengths} batches, by rank, but each update needs one of every "
            "process; give all the same Dataset and batch_size, or hand over the Dataset"
        )
    if not all(sharded for sharded, _ in everyone):
        raise ValueError(
            f"{what}: this DataLoader gives all {dist.world} processes the same samples; hand over the Dataset, or a "
            "DataLoader with a paddle.io.DistributedBatchSampler"
        )
