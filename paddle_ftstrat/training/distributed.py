"""Training in several processes: who is who, and what they tell each other.

The model is not wrapped in `paddle.DataParallel`, under which a change of the trainable set diverges silently or
crashes. Instead the gradients of the trainable parameters are reduced between backward and update.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
    """What each process has to say, in order of rank; anything that JSON can hold."""
    if not dist.is_distributed:
        return [facts]
    text = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8).astype("int32")
    parts = gather_rows(paddle.to_tensor(text), dist)
    return [json.loads(bytes(part.numpy().astype("uint8"))) for part in parts]


def gather_rows(rows: Any, dist: Ranks) -> list[Any]:
    """Each process's rows, in order of rank; their number may differ, the rest of the shape not."""
    if not dist.is_distributed:
        return [rows]
    counts = _all_gather(paddle.to_tensor([rows.shape[0]], dtype="int64"))
    counts = [int(count.item()) for count in counts]
    missing = max(counts) - rows.shape[0]
    if missing:
        rows = paddle.concat([rows, paddle.zeros([missing, *rows.shape[1:]], dtype=rows.dtype)])
    return [part[:count] for part, count in zip(_all_gather(rows), counts)]


def joined_rows(tree: Any, count: int, dist: Ranks) -> Any:
    """Outputs or labels of all processes as one: of each tensor the first `count` rows, joined in order of rank."""
    if isinstance(tree, Mapping):
        return {key: joined_rows(value, count, dist) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return tuple(joined_rows(value, count, dist) for value in tree)
    if not isinstance(tree, paddle.Tensor) or not tree.ndim:
        return tree
    return paddle.concat(gather_rows(tree[:count], dist))


def added(numbers: Sequence[float], dist: Ranks) -> list[float]:
    """Each number summed over all processes, in double precision."""
    if not dist.is_distributed:
        return list(numbers)
    total = paddle.to_tensor(np.asarray(numbers, dtype="float64"))
    distributed.all_reduce(total)
    return total.numpy().tolist()


def reduce_gradients(params: Sequence[Any], dist: Ranks) -> None:
    """Average the gradients over all processes.

    A parameter that got a gradient somewhere gets one everywhere; where it has none, 0 is averaged in.

    Raises:
        ValueError: a sparse gradient, which cannot be averaged.
    """
    if not dist.is_distributed:
        return
    params = [param for param in params if not param.stop_gradient]
    mine = [param.grad is not None for param in params]
    anywhere = added([float(has) for has in mine], dist)
    taking_part = []
    for param, has, count in zip(params, mine, anywhere):
        if has and param.grad.is_selected_rows():
            raise ValueError(
                f"the gradient of {param.name} is sparse, which several processes cannot average: "
                "build its Embedding with sparse=False"
            )
        if count and not has:
            param.grad = paddle.zeros_like(param)
        if count:
            taking_part.append(param)
    if taking_part:
        fused_allreduce_gradients(taking_part, None)


def average_statistics(model: nn.Layer, dist: Ranks) -> None:
    """Average the running statistics of BatchNorm layers that train, so that all processes keep the same."""
    if not dist.is_distributed:
        return
    moving = layers.moving_statistics(model)
    if not moving:
        return
    with paddle.no_grad():
        flat = paddle.concat([stat.reshape([-1]).astype("float32") for stat in moving])
        distributed.all_reduce(flat)
        flat = flat / dist.world
        first = 0
        for stat in moving:
            stat.set_value(flat[first : first + stat.size].reshape(stat.shape).astype(stat.dtype))
            first += stat.size


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


def _all_gather(tensor: Any) -> list[Any]:
    parts: list[Any] = []
    distributed.all_gather(parts, tensor)
    return parts
