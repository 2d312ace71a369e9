"""An exponential moving average of the weights: validated and saved in their place, trained beside them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from paddle_ftstrat.optim import averaging
from paddle_ftstrat.optim.averaging import Averaging
from paddle_ftstrat.param_attr import select
from paddle_ftstrat.training.callbacks import Callback
from paddle_ftstrat.training.state import Training


class EMA(Callback):
    """Averages the weights after each update; validation, and what is saved as the best model, use the average.

    For a fit whose strategy has no `averaging={"EMA": ...}` of its own.

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
        >>> import paddle, paddle_ftstrat as hub
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
        self._rule = averaging.EMA(decay, bias_correction)
        self.fname = fname
        self._kept: Averaging | None = None
        self._model: Any = None
        self._resumed: Mapping[str, Any] | None = None

    @property
    def updates(self) -> int:
        return 0 if self._kept is None else self._kept.count

    def on_fit_begin(self, learner: Training) -> None:
        self._model = learner.model
        self._kept = Averaging(self._rule, select.named_weights(learner.model), learner.run.optimizer)
        if self._resumed is not None:
            self._kept.set_state_dict(self._resumed)

    def on_epoch_begin(self, learner: Training) -> None:
        self._average().join()

    # A phase may thaw weights inside an epoch.
    on_before_update = on_epoch_begin

    def on_after_update(self, learner: Training) -> None:
        self._average().update()

    def on_fit_end(self, learner: Training) -> None:
        self._resumed = None
        if self.fname is not None and self._average().values:
            self.save(learner, self.fname)

    def averaged(self) -> AbstractContextManager[None]:
        """The model with the averaged weights inside; afterwards, or after an error, with its own.

        Raises:
            RuntimeError: there is no average yet.
        """
        return averaging.swapped(self._model, self._average().values)

    def apply(self) -> None:
        """Leave the averaged weights in the model for good; its own are gone."""
        averaging.put(self._average().values, select.named_weights(self._model))

    def save(self, learner: Training, fname: str) -> Path:
        """Write the averaged model to the Learner's `path`/models/`fname`.safetensors.

        Raises:
            OSError: the folder cannot be written; an older file stays.
        """
        with self.averaged():
            return learner.save(fname, with_opt=False)

    def state_dict(self) -> dict[str, Any]:
        """The average of each parameter that has one, by structured name, and the number of updates in it."""
        return {"updates": 0, "average": {}} if self._kept is None else self._kept.state_dict()

    def set_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict()` was taken, in the fit that runs, or in the next one.

        Raises:
            ValueError: an average of a parameter that the model lacks, or of another shape.
        """
        self._resumed = state
        if self._kept is not None:
            self._kept.set_state_dict(state)

    def _average(self) -> Averaging:
        if self._kept is None:
            raise RuntimeError("there is no average yet: give EMA to a fit as a callback first")
        return self._kept
