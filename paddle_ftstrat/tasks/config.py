"""How a task runs and on what: PaddleHub 1.x's RunConfig, and the phases of a data set."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import paddle

from paddle_ftstrat import _errors
from paddle_ftstrat.strategies import DefaultStrategy
from paddle_ftstrat.training.checkpoint.manager import Checkpoints

PHASES = ("train", "dev", "test")
ALIASES = {"val": "dev", "valid": "dev", "validate": "dev", "predict": "test"}


@dataclass(frozen=True, eq=False)
class RunConfig:
    """The settings of a task's run, each read-only.

    Args:
        log_interval: updates between log lines, ≥ 1.
        eval_interval: updates between evaluations on the dev data, ≥ 1.
        use_pyreader: has no meaning in dygraph; changing it warns.
        use_data_parallel: let several processes share the work when they were started together.
        save_ckpt_interval: updates between checkpoints; None: only at the end of each epoch.
        use_cuda: True: first GPU (CPU with a warning, where there is none), False: CPU, None: Paddle's own choice.
        checkpoint_dir: folder of the best model and the checkpoints, from which a task with the same folder goes on;
            None: a new `ckpt_<time>` in this folder.
        num_epoch: number of epochs, ≥ 1.
        batch_size: samples per batch, ≥ 1.
        enable_memory_optim: has no meaning in dygraph; changing it warns.
        strategy: a strategy; None: `DefaultStrategy()`.
        on_length_change, on_lr_change: how a task with the same folder goes on with another number of epochs or LR; see
            `Checkpoints`.

    Raises:
        ValueError: a number out of range.
        TypeError: a value of the wrong type.

    Example:
        >>> config = RunConfig(num_epoch=3, batch_size=16, checkpoint_dir="ckpt_digits")
        >>> config.num_epoch, config.eval_interval
        (3, 100)

    Source: PaddleHub 1.8 `finetune/config.py`.
    """

    log_interval: int = 10
    eval_interval: int = 100
    use_pyreader: bool = field(default=True, repr=False)
    use_data_parallel: bool = field(default=True, repr=False)
    save_ckpt_interval: int | None = None
    use_cuda: bool | None = field(default=None, repr=False)
    checkpoint_dir: str | os.PathLike[str] | None = None
    num_epoch: int = 1
    batch_size: int = 32
    enable_memory_optim: bool = field(default=False, repr=False)
    strategy: DefaultStrategy | None = None
    on_length_change: str | None = field(default=None, repr=False)
    on_lr_change: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        put = partial(object.__setattr__, self)
        for name in ("log_interval", "eval_interval", "save_ckpt_interval", "num_epoch", "batch_size"):
            if (name, getattr(self, name)) != ("save_ckpt_interval", None):
                put(name, _errors.check_whole(name, getattr(self, name), minimum=1))
        for name in ("use_pyreader", "use_data_parallel", "enable_memory_optim", "use_cuda"):
            if (name, getattr(self, name)) != ("use_cuda", None):
                _errors.check_flag(name, getattr(self, name))
        if not isinstance(self.checkpoint_dir, (str, os.PathLike, type(None))):
            raise TypeError(f"checkpoint_dir must be a path, not {_errors.shown(self.checkpoint_dir)}")
        self.checkpoints("")
        put("checkpoint_dir", self.checkpoint_dir or f"ckpt_{time.strftime('%Y%m%d%H%M%S')}")
        put("strategy", DefaultStrategy() if self.strategy is None else self.strategy)
        if not isinstance(self.strategy, DefaultStrategy):
            raise TypeError(f"strategy must be a strategy of paddle_ftstrat, not {_errors.shown(self.strategy)}")
        for name, default in (("use_pyreader", True), ("enable_memory_optim", False)):
            if getattr(self, name) is not default:
                # Past the generated __init__, to the line that makes the config.
                _errors.warn(f"RunConfig({name}={not default}) has no effect in dygraph: leave it out")

    def checkpoints(self, folder: str | os.PathLike[str]) -> Checkpoints:
        """The settings of the checkpoints in a folder.

        Raises:
            ValueError: an unknown choice.
        """
        return Checkpoints(folder, on_length_change=self.on_length_change, on_lr_change=self.on_lr_change)

    def choose_device(self) -> None:
        """Move Paddle to the device that `use_cuda` asks for."""
        if self.use_cuda is None:
            return
        there = paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count()
        if self.use_cuda and not there:
            _errors.warn("use_cuda=True, but there is no GPU: training on the CPU")
        paddle.set_device("gpu" if self.use_cuda and there else "cpu")


def split(dataset: Any) -> dict[str, Any]:
    """Phase → its data, of a dict or of an object with these attributes.

    Raises:
        ValueError: an unknown phase, or no training data.
    """
    if isinstance(dataset, Mapping):
        held: Mapping[str, Any] = dataset
    else:
        held = {name: part for name in (*PHASES, "val", "valid") if (part := getattr(dataset, name, None))}
    given = {ALIASES.get(name, name): part for name, part in held.items()}
    _errors.check_keys("phase of dataset", given, PHASES)
    found = {phase: given[phase] for phase in PHASES if given.get(phase) is not None}
    if "train" not in found:
        raise ValueError("dataset has no training data: give a dict with 'train' (and 'dev', 'test')")
    return found


def label_names(given: Sequence[Any] | None, dataset: Any) -> list[str] | None:
    """The names of the classes: as given, or the `label_list` (or `classes`) of the data or of its training part."""
    train = dataset.get("train") if isinstance(dataset, Mapping) else getattr(dataset, "train", None)
    holders = (dataset, train, getattr(train, "dataset", None))
    found = (getattr(holder, name, None) for holder in holders for name in ("label_list", "classes"))
    names = given if given is not None else next((names for names in found if names), None)
    if isinstance(names, (str, bytes)):
        raise TypeError(f"label_list must be a list of names, not {names!r}")
    return None if names is None else [str(name) for name in names]
