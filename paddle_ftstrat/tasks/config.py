"""How a task runs: PaddleHub 1.x's RunConfig."""

from __future__ import annotations

import os
import time
import warnings

import paddle

from paddle_ftstrat import _errors
from paddle_ftstrat.finetune.strategy import DefaultStrategy


class RunConfig:
    """The settings of a task's run, each a read-only property.

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

    Raises:
        ValueError: a number out of range.
        TypeError: a value of the wrong type.

    Example:
        >>> config = RunConfig(num_epoch=3, batch_size=16, checkpoint_dir="ckpt_digits")
        >>> config.num_epoch, config.eval_interval
        (3, 100)

    Source: PaddleHub 1.8 `finetune/config.py`.
    """

    def __init__(
        self,
        log_interval: int = 10,
        eval_interval: int = 100,
        use_pyreader: bool = True,
        use_data_parallel: bool = True,
        save_ckpt_interval: int | None = None,
        use_cuda: bool | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        num_epoch: int = 1,
        batch_size: int = 32,
        enable_memory_optim: bool = False,
        strategy: DefaultStrategy | None = None,
    ) -> None:
        self._log_interval = _errors.check_whole("log_interval", log_interval, minimum=1)
        self._eval_interval = _errors.check_whole("eval_interval", eval_interval, minimum=1)
        self._use_pyreader = _errors.check_flag("use_pyreader", use_pyreader)
        self._use_data_parallel = _errors.check_flag("use_data_parallel", use_data_parallel)
        self._save_ckpt_interval = save_ckpt_interval
        if save_ckpt_interval is not None:
            self._save_ckpt_interval = _errors.check_whole("save_ckpt_interval", save_ckpt_interval, minimum=1)
        self._use_cuda = None if use_cuda is None else _errors.check_flag("use_cuda", use_cuda)
        if not isinstance(checkpoint_dir, (str, os.PathLike, type(None))):
            raise TypeError(f"checkpoint_dir must be a path, not {_errors.shown(checkpoint_dir)}")
        self._checkpoint_dir = checkpoint_dir or f"ckpt_{time.strftime('%Y%m%d%H%M%S')}"
        self._num_epoch = _errors.check_whole("num_epoch", num_epoch, minimum=1)
        self._batch_size = _errors.check_whole("batch_size", batch_size, minimum=1)
        self._enable_memory_optim = _errors.check_flag("enable_memory_optim", enable_memory_optim)
        self._strategy = DefaultStrategy() if strategy is None else strategy
        if not isinstance(self._strategy, DefaultStrategy):
            raise TypeError(f"strategy must be a strategy of paddle_ftstrat, not {_errors.shown(strategy)}")
        for name, given, default in (
            ("use_pyreader", use_pyreader, True),
            ("enable_memory_optim", enable_memory_optim, False),
        ):
            if given is not default:
                warnings.warn(f"RunConfig({name}={given}) has no effect in dygraph: leave it out", stacklevel=2)

    @property
    def log_interval(self) -> int:
        """Updates between log lines."""
        return self._log_interval

    @property
    def eval_interval(self) -> int:
        """Updates between evaluations on the dev data."""
        return self._eval_interval

    @property
    def use_pyreader(self) -> bool:
        """Kept for old scripts; no meaning in dygraph."""
        return self._use_pyreader

    @property
    def use_data_parallel(self) -> bool:
        """Whether several processes share the work."""
        return self._use_data_parallel

    @property
    def save_ckpt_interval(self) -> int | None:
        """Updates between checkpoints, or None."""
        return self._save_ckpt_interval

    @property
    def use_cuda(self) -> bool | None:
        """Whether to run on a GPU; None leaves it to Paddle."""
        return self._use_cuda

    @property
    def checkpoint_dir(self) -> str | os.PathLike[str]:
        """Folder of the best model and the checkpoints."""
        return self._checkpoint_dir

    @property
    def num_epoch(self) -> int:
        """Number of epochs."""
        return self._num_epoch

    @property
    def batch_size(self) -> int:
        """Samples per batch."""
        return self._batch_size

    @property
    def enable_memory_optim(self) -> bool:
        """Kept for old scripts; no meaning in dygraph."""
        return self._enable_memory_optim

    @property
    def strategy(self) -> DefaultStrategy:
        """The strategy."""
        return self._strategy

    def __repr__(self) -> str:
        shown = ("num_epoch", "batch_size", "log_interval", "eval_interval", "save_ckpt_interval", "checkpoint_dir")
        parts = [f"{name}={getattr(self, name)!r}" for name in shown]
        return f"RunConfig({', '.join(parts)}, strategy={self.strategy!r})"

    def choose_device(self) -> None:
        """Move Paddle to the device that `use_cuda` asks for."""
        if self.use_cuda is None:
            return
        if self.use_cuda and not (paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count()):
            warnings.warn("use_cuda=True, but there is no GPU: training on the CPU", stacklevel=3)
        paddle.set_device("gpu" if self.use_cuda and paddle.device.cuda.device_count() else "cpu")
