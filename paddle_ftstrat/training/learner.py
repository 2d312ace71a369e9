"""The Learner: fitting by strategy or policy, validating, predicting, saving, around the one training loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from paddle import nn

from paddle_ftstrat import _errors, _paddle, transfer
from paddle_ftstrat._paddle import threads
from paddle_ftstrat.binding import Binding
from paddle_ftstrat.param_attr import select
from paddle_ftstrat.plan import spread
from paddle_ftstrat.strategies import DefaultStrategy, FineTuneStrategy, FlatCosStrategy, OneCycleStrategy, SGDRStrategy
from paddle_ftstrat.strategies.policies import MOMS, Policy
from paddle_ftstrat.training import data, distributed, evaluate, evaluation, fit, lr_find, precision, trial
from paddle_ftstrat.training.callbacks import evaluated_weights
from paddle_ftstrat.training.checkpoint import contents, fingerprint
from paddle_ftstrat.training.checkpoint.manager import CheckpointManager, Checkpoints
from paddle_ftstrat.training.frozen_features import FrozenFeatures
from paddle_ftstrat.training.own_fits import OwnFits
from paddle_ftstrat.training.recorder import Recorder
from paddle_ftstrat.training.state import Span, TrainState
from paddle_ftstrat.transfer.tune import FACTOR


class Learner:
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
        if not isinstance(model, nn.Layer):
            raise TypeError(f"model must be a paddle.nn.Layer, not {type(model).__name__}")
        # Under DataParallel layers could not be thawed; gradients are reduced without it.
        threads.take_widest_code()
        self.model = _paddle.unwrap(model)
        self.ranks = distributed.ranks(data_parallel)
        self.batch_size = _errors.check_whole("batch_size", batch_size, minimum=1)
        self.accumulate = _errors.check_whole("accumulate", accumulate, minimum=1)
        self.train = self._loader(train, "train", shuffle=True)
        self.valid = None if valid is None else self._loader(valid, "valid")
        self.num_threads = None if num_threads is None else _errors.check_whole("num_threads", num_threads, minimum=1)
        self.cache_frozen = cache_frozen
        self.features: FrozenFeatures | None = None
        self.precision = amp if isinstance(amp, precision.Precision) else precision.make(amp)
        self.loss = loss
        self.opt = opt
        spread(lr, 1)
        self.lr = lr
        self.wd = None if wd is None else _errors.check_number("wd", wd, minimum=0)
        self.moms = moms
        self.metrics = evaluation.find(metrics)
        self.path = Path(path)
        self.cbs = _as_list(cbs)
        self.progress = progress
        self.recorder = Recorder()
        self.updates = -(-len(self.train) // self.accumulate)
        self.state = TrainState(0, len(self.train), self.updates)
        self.weights = select.named_weights(self.model)
        self.run: Binding | None = None
        self.own = OwnFits(self, layer_groups)
        self.prepared = False
        if tune is not None:
            transfer.tune(self.model, tune, head, head_factor, batch_norm)
        self.telling: list[Any] = []
        self.notes: dict[str, Any] = {}
        self.journal = CheckpointManager(checkpoints, self.ranks)

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
        n_epoch, start_epoch = self._check_epochs(n_epoch, start_epoch)
        if strategy is None:
            if bind_options:
                raise TypeError(f"{sorted(bind_options)} only go with a strategy")
            self.own.run(reset_opt)
            constant = Policy("lr", self.lr if lr is None else lr, self.opt)
            return self.own.fit("fit", (n_epoch, start_epoch), constant, wd, _as_list(cbs))
        if not isinstance(strategy, DefaultStrategy):
            raise TypeError(f"strategy must be a strategy of paddle_ftstrat, not {strategy!r}")
        if lr is not None or wd is not None:
            raise ValueError("a strategy brings its own learning rate and decay: leave lr and wd out")
        if "sample_input" not in bind_options and bind_options.get("layers") is None:
            bind_options["sample_input"] = data.first_inputs(self.train)

        def bound(span: Span) -> Binding:
            plan = fit.planned(self, strategy, span, _as_list(cbs))
            return Binding(plan, self.model, steps_per_epoch=self.updates, **bind_options)

        given = fingerprint.of_strategy(strategy)
        return fit.train(self, "fit", (n_epoch, start_epoch), given, bound, _as_list(cbs))

    def fit_one_cycle(
        self,
        n_epoch: int,
        lr_max: Any = None,
        div: float = 25.0,
        div_final: float = 1e5,
        pct_start: float = 0.25,
        wd: float | None = None,
        moms: Sequence[float] | None = None,
        cbs: Any = (),
        reset_opt: bool = False,
        start_epoch: int = 0,
    ) -> list[dict[str, float]]:
        """The 1cycle policy: LR from lr_max/div up to lr_max and down to lr_max/div_final, momentum the other way.

        Args: as `fit` and `strategies.OneCycleStrategy`; `moms` None: the Learner's, where the optimizer has momentum.

        Source: Smith & Topin (arXiv:1708.07120); fastai `fit_one_cycle`.
        """
        n_epoch, start_epoch = self._check_epochs(n_epoch, start_epoch)
        self.own.run(reset_opt)
        policy = OneCycleStrategy(
            self.lr if lr_max is None else lr_max, div, div_final, pct_start, self.own.momentum(moms), self.opt
        )
        return self.own.fit("fit_one_cycle", (n_epoch, start_epoch), policy, wd, _as_list(cbs))

    def fit_flat_cos(
        self,
        n_epoch: int,
        lr: Any = None,
        div_final: float = 1e5,
        pct_start: float = 0.75,
        wd: float | None = None,
        cbs: Any = (),
        reset_opt: bool = False,
        start_epoch: int = 0,
    ) -> list[dict[str, float]]:
        """A flat LR for `pct_start` of the fit, then a cosine down to lr/div_final.

        Args: as `fit` and `strategies.FlatCosStrategy`.

        Source: fastai `fit_flat_cos`, which forgets `start_epoch`.
        """
        n_epoch, start_epoch = self._check_epochs(n_epoch, start_epoch)
        self.own.run(reset_opt)
        policy = FlatCosStrategy(self.lr if lr is None else lr, div_final, pct_start, self.opt)
        return self.own.fit("fit_flat_cos", (n_epoch, start_epoch), policy, wd, _as_list(cbs))

    def fit_sgdr(
        self,
        n_cycles: int,
        cycle_len: int,
        lr_max: Any = None,
        cycle_mult: int = 2,
        wd: float | None = None,
        cbs: Any = (),
        reset_opt: bool = False,
        start_epoch: int = 0,
    ) -> list[dict[str, float]]:
        """Warm restarts: `n_cycles` cosines from lr_max to 0, each `cycle_mult` times as long as the one before.

        Args: as `fit` and `strategies.SGDRStrategy`.

        Source: Loshchilov & Hutter, SGDR (arXiv:1608.03983); fastai `fit_sgdr`, which divides by 0 at cycle_mult=1.
        """
        policy = SGDRStrategy(self.lr if lr_max is None else lr_max, n_cycles, cycle_len, cycle_mult, self.opt)
        n_epoch, start_epoch = self._check_epochs(policy.num_epoch, start_epoch)
        self.own.run(reset_opt)
        return self.own.fit("fit_sgdr", (n_epoch, start_epoch), policy, wd, _as_list(cbs))

    def fine_tune(
        self,
        epochs: int,
        base_lr: float = 2e-3,
        freeze_epochs: int = 1,
        lr_mult: float = 100.0,
        pct_start: float = 0.3,
        div: float = 5.0,
        div_final: float = 1e5,
        moms: Sequence[float] | None = None,
        wd: float | None = None,
        cbs: Any = (),
        start_epoch: int = 0,
    ) -> list[dict[str, float]]:
        """One cycle with all but the top group frozen, then one with everything and discriminative LRs.

        Args: as `fit` and `strategies.FineTuneStrategy`; `start_epoch` counts the epochs of both phases.

        Source: fastai `fine_tune`.
        """
        fit.check_idle(self)
        moms = self.own.momentum(moms)
        policy = FineTuneStrategy(base_lr, freeze_epochs, lr_mult, pct_start, div, div_final, moms, self.opt)
        n_epoch = _errors.check_whole("epochs", epochs) + freeze_epochs
        if not n_epoch:
            return []
        self.unfreeze()
        return self.own.fit("fine_tune", self._check_epochs(n_epoch, start_epoch), policy, wd, _as_list(cbs))

    def lr_find(
        self,
        start_lr: float = 1e-7,
        end_lr: float = 10.0,
        num_it: int = 100,
        stop_div: bool = True,
        show_plot: bool = False,
        suggest_funcs: Any = lr_find.valley,
    ) -> Any:
        """Try rising LRs for `num_it` updates and suggest one; afterwards everything is as it was before.

        Args:
            start_lr: the first LR.
            end_lr: the last LR.
            num_it: number of updates, ≥ 6.
            stop_div: stop when the loss diverges.
            show_plot: draw `recorder.plot_lr_find()`.
            suggest_funcs: `valley`, `slide`, `minimum`, `steep`, partials of them, or your own function
                (lrs, losses, num_it) → (lr, (lr, loss)); one or a list.

        Returns:
            A named tuple with an LR for each function.

        Raises:
            ValueError: numbers out of range, or too few updates before divergence.

        Source: fastai `lr_find`.
        """
        finder = lr_find.LRFinder(start_lr, end_lr, num_it, stop_div)
        found, self.recorder.sweep = trial.sweep(self, finder, _as_list(suggest_funcs))
        if show_plot:
            self.recorder.plot_lr_find()
        return found

    def freeze_to(self, n: int) -> None:
        """Freeze the first `n` layer groups (negative: all but the last −n) in fits without strategy.

        Raises:
            ValueError: there are not so many groups.
        """
        self.own.freeze_to(n)

    def freeze(self) -> None:
        """Freeze all layer groups but the top one."""
        self.freeze_to(-1)

    def unfreeze(self) -> None:
        """Let all layer groups train again (but for what the user froze)."""
        self.freeze_to(0)

    def validate(self, dataset: Any = None) -> dict[str, float]:
        """Loss and metrics over the validation data, or other data, in eval mode.

        Args:
            dataset: a DataLoader or Dataset; None: the Learner's `valid`.

        Raises:
            ValueError: there is no validation data.
        """
        loader = self.valid if dataset is None else self._loader(dataset, "data")
        if loader is None:
            raise ValueError("no validation data: give Learner(valid=...) or validate(data)")
        self.tell("validate_begin")
        with evaluated_weights(self):
            self.state.values = evaluate.evaluate(self, loader)
        self.tell("validate_end")
        return self.state.values

    def predict(self, dataset: Any) -> Any:
        """The model's outputs over data, in eval mode, joined along the first axis.

        Args:
            dataset: a DataLoader or Dataset, whose batches may have a label at their end (which is left out) or consist
                of one input.
        """
        # Every process predicts everything: what it returns is for this process's caller.
        return evaluate.predict(self, data.as_loader(dataset, self.batch_size, shuffle=False, what="data"))

    def save(self, fname: str, with_opt: bool = True) -> Path:
        """Write model (and optimizer, LR position, epoch) to `path`/models/`fname`.safetensors.

        Raises:
            OSError: the folder cannot be written; an older file stays.
        """
        path = self._file(fname)
        return contents.save(path, self.model, self.run if with_opt else None) if self.ranks.first else path

    def load(self, fname: str, with_opt: bool = True) -> None:
        """Load what `save` wrote; the optimizer's state only where there is one on both sides.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a damaged file, or parameters of other names or shapes; nothing is changed then.
        """
        distributed.wait_for_all(self.ranks)
        contents.load(self._file(fname), self.model, self.run if with_opt else None)

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
        contents.set_weights(self.model, found.parts["model"])
        return found.step

    @property
    def layer_groups(self) -> list[list[str]]:
        """The names of each layer group's weights, bottom first, as fits without a strategy have them."""
        return self.own.groups()

    def __repr__(self) -> str:
        sizes = [(weight.size, not weight.stop_gradient) for weight in self.weights.values()]
        model = f"{type(self.model).__name__}, {sum(a * b for a, b in sizes):,} of {sum(a for a, _ in sizes):,} train"
        batches = f"batches: {len(self.train)} train, {0 if self.valid is None else len(self.valid)} valid"
        return f"Learner({model}; {batches}; {self.recorder!r})"

    @property
    def quiet(self) -> bool | None:
        """Whether progress is shown: True shows nothing, None lines, and bars on a terminal."""
        if not self.ranks.first:
            return True
        return None if self.progress is None else not self.progress

    def value_names(self) -> list[str]:
        """Names in the results of an epoch."""
        return ["epoch", "train_loss", *(["valid_loss", *self.metrics] if self.valid is not None else [])]

    def tell(self, event: str) -> None:
        """Have every callback hear an event, e.g. `epoch_end`; a callback without a method for it is passed over."""
        for callback in self.telling:
            hear = getattr(callback, "on_" + event, None)
            if hear is not None:
                hear(self)

    def _check_epochs(self, n_epoch: Any, start_epoch: Any) -> tuple[int, int]:
        fit.check_idle(self)
        n_epoch = _errors.check_whole("n_epoch", n_epoch, minimum=1)
        start_epoch = _errors.check_whole("start_epoch", start_epoch)
        if start_epoch >= n_epoch:
            raise ValueError(f"start_epoch = {start_epoch} is beyond the end: the fit has {n_epoch} epochs")
        return n_epoch, start_epoch

    def _loader(self, given: Any, what: str, shuffle: bool = False) -> Any:
        return data.as_loader(given, self.batch_size, shuffle, what, self.ranks)

    def _file(self, fname: str) -> Path:
        return self.path / "models" / f"{fname}.safetensors"


def _as_list(given: Any) -> list[Any]:
    return list(given) if isinstance(given, (list, tuple)) else [] if given is None else [given]
