"""The Learner: fitting by strategy or policy, validating, predicting, saving, around the one training loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from paddle import nn

from paddle_ftstrat import transfer
from paddle_ftstrat.binding import Binding
from paddle_ftstrat.plan import Plan
from paddle_ftstrat.strategies import DefaultStrategy
from paddle_ftstrat.strategies.policies import MOMS, Policy
from paddle_ftstrat.training import data, evaluation, precision
from paddle_ftstrat.training.callbacks import as_list
from paddle_ftstrat.training.checkpoint import contents
from paddle_ftstrat.training.checkpoint.manager import Checkpoints
from paddle_ftstrat.training.fitting import PolicyLoop
from paddle_ftstrat.transfer.tune import FACTOR


class Learner(PolicyLoop):
    """Trains a model: the loop, fastai's fitting policies, validation, callbacks, a record of what happened.

    Args:
        model: a `paddle.nn.Layer`.
        train: training data, a `paddle.io.DataLoader` or a Dataset.
        valid: validation data, likewise, or None.
        loss: function (output, label) → scalar tensor; None: cross entropy for integer labels, else mean squared error,
            of `logits` or the first entry of a tuple. A batch without label means that the model returns its loss.
        opt: optimizer name or class, for fits without a strategy.
        lr: learning rate, for fits without one: a number, or `slice(lo, hi)` spread geometrically over the groups.
        wd: decoupled weight decay of fits without a strategy; None leaves the optimizer's own.
        moms: momentum (or β₁) of `fit_one_cycle` at the start, at the peak of the LR and at the end.
        metrics: what validation computes besides the loss: names (`acc`, `f1`, `mse`, `r2`, `auc`, …), functions
            (outputs, labels) → number, `paddle.metric.Metric`s.
        layer_groups: the layer groups, bottom first: selectors, layers or lists of parameters, or a function
            (model) → such a list; None: the layers in order of execution (see `param_attr.depth.find_units`).
        path: folder for `save` and `load`.
        batch_size: samples per batch where `train` or `valid` is a Dataset.
        cbs: callbacks of every fit.
        progress: True shows progress bars, False nothing, None bars on a terminal and else a line per epoch.
        tune: "head" (all else frozen), "all" or "differential" (head LR × `head_factor`); None leaves the model as it
            is (see `transfer.tune`).
        head: what the head is, for `tune`; None: what `load_pretrained` left new, else the top layer.
        head_factor: head LR over backbone LR of "differential".
        batch_norm: the statistics of frozen BatchNorm layers under "head": "freeze" or "track".
        checkpoints: a folder, or `Checkpoints` with more to say: the same script, started again, goes on from there.
        accumulate: batches whose gradients make one update, ≥ 1; their mean is that of one batch of all of them.
        amp: mixed precision in bfloat16, "O1" or "O2", or what `mixed_precision` gives; None: float32.
        data_parallel: share the work with the processes that were started together; False: work alone. A Dataset is
            shared out among them; `batch_size` is the size of each process's batch.
        num_threads: threads of Paddle's CPU kernels; None: all cores that this process may use, unless OMP_NUM_THREADS
            was set (see `cpu_threads`).
        cache_frozen: compute what the frozen lower layers give each sample once and reuse it in later epochs, in memory
            up to 2 GiB (or so many bytes), else on disk; refused where that is not the same (see `FrozenFeatures`).

    Attributes:
        state: where the loop is (`TrainState`).
        ranks: which process this is (`rank`), of how many (`world`).
        recorder: LRs, losses and results so far, and pictures of them.
        run: the binding of the last fit.

    Raises:
        ValueError, TypeError: unusable data, metrics or numbers, before anything is trained.

    Example:
        >>> import paddle
        >>> x = paddle.randn([64, 4])
        >>> pairs = paddle.io.TensorDataset([x, (x.sum(-1) > 0).astype("int64")])
        >>> learner = Learner(nn.Linear(4, 2), pairs, pairs, metrics="acc", batch_size=16, progress=False)
        >>> results = learner.fit_one_cycle(3, 0.1)
        >>> sorted(results[-1])
        ['acc', 'epoch', 'train_loss', 'valid_loss']

    Source: the interface is fastai's `Learner`.
    """

    def __init__(
        self,
        model: nn.Layer,
        train: Any,
        valid: Any = None,
        loss: Callable[[Any, Any], Any] | None = None,
        opt: str | type = "adam",
        lr: Any = 1e-3,
        wd: float | None = None,
        moms: Sequence[float] = MOMS,
        metrics: Any = None,
        layer_groups: Any = None,
        path: str | Path = ".",
        batch_size: int = 64,
        cbs: Any = (),
        progress: bool | None = None,
        tune: str | None = None,
        head: Any = None,
        head_factor: float = FACTOR,
        batch_norm: str = "freeze",
        checkpoints: Checkpoints | str | Path | None = None,
        accumulate: int = 1,
        amp: str | precision.Precision | None = None,
        data_parallel: bool = True,
        num_threads: int | None = None,
        cache_frozen: bool | int = False,
    ) -> None:
        super().__init__(
            *(opt, lr, wd, moms, layer_groups),
            *(model, train, valid, loss, metrics, path, batch_size, cbs, progress, checkpoints),
            *(accumulate, amp, data_parallel, num_threads, cache_frozen),
        )
        if tune is not None:
            transfer.tune(self.model, tune, head, head_factor, batch_norm)

    def fit(
        self,
        n_epoch: int,
        lr: Any = None,
        wd: float | None = None,
        strategy: DefaultStrategy | None = None,
        cbs: Any = (),
        reset_opt: bool = False,
        start_epoch: int = 0,
        **bind_options: Any,
    ) -> list[dict[str, float]]:
        """Train for `n_epoch` epochs, with a strategy or at a constant LR.

        Args:
            n_epoch: number of epochs, ≥ 1.
            lr: learning rate of a fit without strategy, a number or `slice(lo, hi)`; None: the Learner's.
            wd: decoupled weight decay of a fit without strategy; None: the Learner's.
            strategy: a strategy; it brings its own optimizer, LR and decay.
            cbs: callbacks of this fit, after the Learner's.
            reset_opt: begin with a new optimizer; otherwise fits without strategy continue with the same one.
            start_epoch: number of epochs of this fit that were done before: it goes on along the same curve.
            **bind_options: with a strategy: `pretrained`, `layers`, `no_decay`, `sample_input` as for its `bind`.

        Returns:
            The results of each epoch.

        Raises:
            ValueError: bad numbers, or a strategy together with `lr` or `wd`.
            TypeError: `strategy` is none, or `bind_options` without one.
            FloatingPointError: the loss is not finite; the model keeps the weights of the last good update.
            RuntimeError: this Learner is in a fit already, or another fit writes to its checkpoint folder.

        Source: fastai `Learner.fit`.
        """
        if strategy is None:
            if bind_options:
                raise TypeError(f"{sorted(bind_options)} only go with a strategy")
            epochs = self._begin(n_epoch, start_epoch, reset_opt)
            return self._fit("fit", epochs, Policy("lr", self.lr if lr is None else lr, self.opt), wd, cbs)
        epochs = self._check_epochs(n_epoch, start_epoch)
        if not isinstance(strategy, DefaultStrategy):
            raise TypeError(f"strategy must be a strategy of paddle_ftstrat, not {strategy!r}")
        if lr is not None or wd is not None:
            raise ValueError("a strategy brings its own learning rate and decay: leave lr and wd out")
        if "sample_input" not in bind_options and bind_options.get("layers") is None:
            bind_options["sample_input"] = data.first_inputs(self.train)

        def bound(plan: Plan) -> Binding:
            return Binding(plan, self.model, steps_per_epoch=self.updates, **bind_options)

        return self.fit_strategy(strategy, "fit", epochs, dict, bound, as_list(cbs))

    def predict(self, dataset: Any) -> Any:
        """The model's outputs over data, in eval mode, joined along the first axis.

        Args:
            dataset: a DataLoader or Dataset, whose batches may have a label at their end (which is left out) or consist
                of one input.
        """
        # Every process predicts everything: what it returns is for this process's caller.
        loader = data.as_loader(dataset, self.batch_size, shuffle=False, what="data")
        return data.concatenated([output for _, output in evaluation.outputs(self, loader)])

    def save_checkpoint(self) -> None:
        """Have a checkpoint saved at the end of the update that runs; for callbacks.

        Raises:
            ValueError: this Learner saves no checkpoints.
        """
        self.journal.ask()

    def load_checkpoint(self, best: bool = False) -> int:
        """Load the weights of the newest checkpoint, or of the best one.

        Args:
            best: the one whose epoch had the best result.

        Returns:
            The number of updates it had behind it.

        Raises:
            FileNotFoundError: there is none.
            ValueError: this Learner saves no checkpoints, or they are damaged or of another model.
        """
        found = self.journal.checkpoint(best)
        contents.check_weights(self.model, found.parts["model"])
        self.model.set_state_dict(found.parts["model"])
        return found.step

    def __repr__(self) -> str:
        sizes = [(weight.size, not weight.stop_gradient) for weight in self.weights.values()]
        model = f"{type(self.model).__name__}, {sum(a * b for a, b in sizes):,} of {sum(a for a, _ in sizes):,} train"
        batches = f"batches: {len(self.train)} train, {0 if self.valid is None else len(self.valid)} valid"
        return f"Learner({model}; {batches}; {self.recorder!r})"
