"""An exponential moving average of the weights: validated and saved in their place, trained beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paddle

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat.param_attr import select
from paddle_ftstrat.training.callbacks import Callback
from paddle_ftstrat.training.state import Training


class EMA(Callback):
    """Averages the weights after each update; validation, and what is saved as the best model, use the average.

    After update t: ema ← d·ema + (1−d)·w, from the weights w⁰ at the begin on, in float32
    (where the optimizer keeps float32 copies of half-precision weights, of those). With `bias_correction` the
    weight of what comes in is (1−d)/(1−dᵗ) instead of 1−d: the average of w¹ … wᵗ alone, as Adam corrects its moments.

    A parameter is averaged from its first epoch of training on; one that stays frozen has no copy and costs nothing.
    Statistics of BatchNorm layers are not averaged, they are moving averages already: validation takes the model's
    own, which were gathered under the weights in training.

    Args:
        decay: d, 0 ≤ d < 1.
        bias_correction: leave the first weights out of the average.
        fname: write the averaged model to the Learner's `path`/models/`fname`.safetensors when the fit ends; None: not.

    Attributes:
        updates: t, the updates that are in the average.

    Raises:
        ValueError: decay out of range.
        TypeError: decay is no number.

    Example:
        >>> import paddle_ftstrat as hub
        >>> model = paddle.nn.Linear(4, 2)
        >>> pairs = paddle.io.TensorDataset([paddle.randn([32, 4]), paddle.randint(0, 2, [32])])
        >>> ema = EMA(decay=0.9)
        >>> learner = hub.Learner(model, pairs, pairs, batch_size=8, progress=False)
        >>> _ = learner.fit(2, 0.1, cbs=ema)
        >>> with ema.averaged():
        ...     averaged = learner.validate()["loss"]
        >>> ema.updates, averaged == learner.recorder.values[-1]["valid_loss"]
        (8, True)

    Source: Polyak & Juditsky (1992) for averaging; Kingma & Ba (arXiv:1412.6980, section 3) for the correction.
    """

    def __init__(self, decay: float = 0.999, bias_correction: bool = False, fname: str | None = None) -> None:
        self.decay = _errors.check_number("decay", decay, minimum=0)
        if self.decay >= 1:
            raise ValueError(f"decay = {decay!r} is outside what is allowed: a number ≥ 0 and < 1")
        self.bias_correction = bias_correction
        self.fname = fname
        self.updates = 0
        self._weights: dict[str, Any] = {}
        self._average: dict[str, Any] = {}
        self._put_by: dict[str, Any] | None = None
        self._resumed: Mapping[str, Any] | None = None

    def on_fit_begin(self, learner: Training) -> None:
        self._weights = select.named_weights(learner.model)
        self.updates, self._average = 0, {}
        if self._resumed is not None:
            self._take(self._resumed)

    def on_epoch_begin(self, learner: Training) -> None:
        # Up to here a frozen weight has not moved: its average is the weight.
        for name, weight in self._weights.items():
            if not weight.stop_gradient and name not in self._average:
                self._average[name] = _float32(weight)

    # A phase may thaw weights inside an epoch.
    on_before_update = on_epoch_begin

    def on_after_update(self, learner: Training) -> None:
        self.updates += 1
        share = 1.0 - self.decay
        if self.bias_correction:
            share /= 1.0 - self.decay**self.updates
        with paddle.no_grad():
            for name, average in self._average.items():
                weight = self._weights[name]
                master = _paddle.master_weight(learner.run.optimizer, weight)
                weight = weight if master is None else master
                weight = weight if weight.dtype == average.dtype else weight.astype(average.dtype)
                # ema ← (ema − w)·d + w, in place: several times as fast as `lerp_`, and w is a fixed point exactly.
                average.subtract_(weight)
                average.scale_(1.0 - share)
                average.add_(weight)

    def on_validate_begin(self, learner: Training) -> None:
        self._swap_in()

    def on_validate_end(self, learner: Training) -> None:
        self._swap_out()

    def on_fit_end(self, learner: Training) -> None:
        # Validation may have ended in an error.
        self._swap_out()
        self._resumed = None
        if self.fname is not None and self._average:
            self.save(learner, self.fname)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model with the averaged weights inside; afterwards, or after an error, with its own.

        Raises:
            RuntimeError: there is no average yet.
        """
        self._check_known()
        outer = self._put_by is not None
        if not outer:
            self._swap_in()
        try:
            yield
        finally:
            if not outer:
                self._swap_out()

    def apply(self) -> None:
        """Leave the averaged weights in the model for good; its own are gone."""
        self._check_known()
        self._swap_in()
        self._put_by = None

    def save(self, learner: Training, fname: str) -> Path:
        """Write the averaged model to the Learner's `path`/models/`fname`.safetensors.

        Raises:
            OSError: the folder cannot be written; an older file stays.
        """
        with self.averaged():
            return learner.save(fname, with_opt=False)

    def state_dict(self) -> dict[str, Any]:
        """The average of each parameter that has one, by structured name, and the number of updates in it."""
        return {"updates": self.updates, "average": dict(self._average)}

    def set_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict()` was taken, in the fit that runs, or in the next one.

        Raises:
            ValueError: an average of a parameter that the model lacks, or of another shape.
        """
        self._resumed = state
        if self._weights:
            self._take(state)

    def _check_known(self) -> None:
        if not self._weights:
            raise RuntimeError("there is no average yet: give EMA to a fit as a callback first")

    def _take(self, state: Mapping[str, Any]) -> None:
        average = state.get("average", {})
        _errors.check_keys("averaged parameter", average, self._weights)
        taken = {}
        for name, value in average.items():
            weight = self._weights[name]
            if list(value.shape) != list(weight.shape):
                raise ValueError(f"the average of {name!r} has shape {list(value.shape)}, not {list(weight.shape)}")
            value = value if isinstance(value, paddle.Tensor) else paddle.to_tensor(value)
            taken[name] = _float32(value)
        self.updates, self._average = int(state["updates"]), taken

    def _swap_in(self) -> None:
        if self._put_by is not None:
            return
        self._put_by = {name: self._weights[name].detach().clone() for name in self._average}
        with paddle.no_grad():
            for name, average in self._average.items():
                paddle.assign(average.astype(self._weights[name].dtype), output=self._weights[name])

    def _swap_out(self) -> None:
        if self._put_by is None:
            return
        with paddle.no_grad():
            for name, weight in self._put_by.items():
                paddle.assign(weight, output=self._weights[name])
        self._put_by = None


def _float32(weight: Any) -> Any:
    kept = weight.detach().clone()
    return kept if str(kept.dtype).rpartition(".")[2] in ("float32", "float64") else kept.astype("float32")
