"""Mixed precision of a training loop: what is cast, how the loss is scaled, when an update is skipped."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import paddle
from paddle import nn

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat._paddle.updates import cast_layers
from paddle_ftstrat.binding import Binding
from paddle_ftstrat.optim import masters
from paddle_ftstrat.param_attr import select, settings

LEVELS = ("O1", "O2")
DTYPES = ("bfloat16", "float16")


def mixed_precision(level: str | None = None, dtype: str = "bfloat16", scaler: Any = None) -> Precision:
    """The precision of a training loop; the same four calls for each.

    Args:
        level: None: float32; "O1": chosen operations run in half precision, on float32 weights; "O2": the model itself
            is cast, and the optimizer updates float32 copies of its weights.
        dtype: "bfloat16" (Ampere or newer) or "float16", which needs the loss to be scaled.
        scaler: the `paddle.amp.GradScaler` for float16; None: one with Paddle's defaults.

    Raises:
        ValueError: an unknown level or dtype, a scaler or dtype that would not be used, a scaler that is switched off,
            or a device on which Paddle's mixed precision does nothing, such as a CPU.

    Example:
        >>> import paddle_ftstrat as hub
        >>> model = paddle.nn.Linear(2, 1)
        >>> run = hub.DefaultStrategy(learning_rate=0.1, optimizer_name="sgd").bind(model)
        >>> precision = mixed_precision()
        >>> precision.prepare(model)
        >>> with precision.forward():
        ...     loss = model(paddle.ones([4, 2])).mean()
        >>> precision.backward(loss)
        >>> precision.update(run)
        True
    """
    if level is None:
        if scaler is not None or dtype != "bfloat16":
            raise ValueError("dtype and scaler belong to mixed precision: give level='O1' or 'O2' with them")
        return Precision(None, dtype, None)
    _errors.check_keys("level of mixed precision", [level], LEVELS)
    _errors.check_keys("dtype of mixed precision", [dtype], DTYPES)
    if scaler is not None and dtype == "bfloat16":
        raise ValueError("bfloat16 has float32's range, so its loss needs no scaling: leave scaler out")
    if not autocasts(dtype):
        raise ValueError(
            f"Paddle's mixed precision in {dtype} does nothing on {paddle.device.get_device()}: train in float32 there "
            "(amp=None), or choose a device that has it"
        )
    if dtype == "float16":
        scaler = paddle.amp.GradScaler() if scaler is None else scaler
        if not scaler.is_enable():
            raise ValueError("the GradScaler is switched off, and without it small float16 gradients vanish")
    return Precision(level, dtype, scaler)


def autocasts(dtype: str) -> bool:
    """Whether `paddle.amp.auto_cast` does anything on the current device; where it does not, it only warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with paddle.amp.auto_cast(level="O1", dtype=dtype):
            return paddle.matmul(paddle.ones([1, 1]), paddle.ones([1, 1])).dtype == getattr(paddle, dtype)


class Precision:
    """What `mixed_precision` gives: `prepare` once, then `forward`, `backward` and `update` in every update.

    Attributes:
        level: None, "O1" or "O2".
        dtype: the half precision's name.
        scaler: the loss scaler of float16, else None.
    """

    def __init__(self, level: str | None, dtype: str, scaler: Any) -> None:
        self.level, self.dtype, self.scaler = level, dtype, scaler

    def prepare(self, model: nn.Layer) -> None:
        """Cast a model for "O2", in place; before or after it is bound, and after its weights are loaded.

        BatchNorm stays in float32, and in float16 so do LayerNorm and InstanceNorm, as Paddle has it. The float32
        values are kept beside the weights that train: L2SP anchors and updates start from them.

        Raises:
            ValueError: the model has sparse embeddings, on whose half-precision gradients Paddle aborts.
        """
        if self.level != "O2":
            return
        model = _paddle.unwrap(model)
        layers = model.named_sublayers(include_self=True)
        sparse = [name for name, layer in layers if _paddle.is_sparse_embedding(layer)]
        if sparse:
            raise ValueError(
                f"amp='O2' and Embedding(sparse=True) exclude each other: build {sparse} with sparse=False"
            )
        for param in select.named_weights(model).values():
            if param.dtype == paddle.float32 and settings.own(param).trainable:
                masters.keep(param)
        cast_layers(model, self.dtype)
        masters.forget_unused(select.named_weights(model).values())

    def forward(self) -> AbstractContextManager[None]:
        """The context of a forward pass and its loss."""
        if self.level is None:
            return nullcontext()
        return paddle.amp.auto_cast(level=self.level, dtype=self.dtype)

    def backward(self, loss: Any) -> None:
        """`loss.backward()`, of the scaled loss where there is a scaler."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def update(self, run: Binding) -> bool:
        """`run.step()`; False where infinite gradients skipped it, which leaves all but the scaler as it was."""
        return run.step(self.scaler)

    def state_dict(self) -> dict[str, Any]:
        """The scaler's state as JSON values; empty without a scaler."""
        state = {} if self.scaler is None else self.scaler.state_dict()
        return {key: float(np.ravel(value)[0]) if key == "scale" else value for key, value in state.items()}

    def set_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where `state_dict()` was taken.

        Raises:
            ValueError: there is a scaler's state but no scaler, or something is missing in it; nothing is changed.
        """
        if not state_dict:
            return
        if self.scaler is None:
            raise ValueError(
                f"the state is that of a loss scaler, which level={self.level!r}, dtype={self.dtype!r} has not: "
                "resume in the precision that was saved"
            )
        missing = [key for key in self.scaler.state_dict() if key not in state_dict]
        if missing:
            raise ValueError(f"not the state of a loss scaler: {missing} missing")
        self.scaler.load_state_dict({**state_dict, "scale": np.array([state_dict["scale"]], "float32")})
