"""What a sweep over data tells before or while a model trains: which layers need to move, which values matter."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import paddle
from paddle import nn

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat._paddle.layers import differentiable
from paddle_ftstrat.param_attr import select
from paddle_ftstrat.param_attr.depth import call, find_units, split_batch
from paddle_ftstrat.training import data, distributed, evaluation, rng
from paddle_ftstrat.training.callbacks import Callback
from paddle_ftstrat.training.state import Training


def auto_rgn(
    model: nn.Layer,
    loader: Any,
    loss: Any = None,
    batches: int = 5,
    layers: Sequence[Any] | None = None,
    sample_input: Any = None,
    batch_size: int = 64,
) -> dict[str, float]:
    """LR factors of the layers from their relative gradient norms: the layers that have to change most change fastest.

    rₗ = mean over batches of ‖gₗ‖/‖wₗ‖; factor = rₗ / max r. Measured in eval mode; nothing of the model, of its
    gradients or of the random numbers changes. A layer without a gradient, or whose weights are all 0, has 1.

    Args:
        model: the model, before it is bound or while it is.
        loader: the new task's data: a DataLoader or Dataset of (inputs, label).
        loss: function (output, label) → scalar, as for `Learner`; None goes by the label.
        batches: how many to measure on, ≥ 1.
        layers: the layers by hand, as for `bind`; a binding's are `run.blocks`.
        sample_input: one input, for the order of execution.
        batch_size: samples per batch where `loader` is a Dataset.

    Returns:
        Layer → factor in [0, 1], bottom first, for `CombinedStrategy(scheduler={"layer_factors": factors})`; of
        `run.blocks`, the values are for `run.block_factors`.

    Raises:
        ValueError: no data, or a gradient that is not finite.

    Example:
        >>> import paddle_ftstrat as hub
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        >>> pairs = paddle.io.TensorDataset([paddle.randn([16, 3]), paddle.randint(0, 2, [16])])
        >>> factors = auto_rgn(model, pairs, batch_size=8)
        >>> list(factors), max(factors.values())
        (['0', '2'], 1.0)
        >>> run = hub.CombinedStrategy(scheduler={"layer_factors": factors}).bind(model)
        >>> run.block_factors == list(factors.values())
        True

    Source: Lee et al., "Surgical Fine-Tuning Improves Adaptation to Distribution Shifts" (arXiv:2210.11466, section 4).
    """
    units = find_units(model, sample_input, layers)
    loader = data.as_loader(loader, batch_size, shuffle=False, what="loader")
    batches = _errors.check_whole("batches", batches, minimum=1)
    ratios = _ratios(model, loader, loss, batches, [unit.parameters for unit in units])
    return dict(zip((unit.name for unit in units), _normalised(ratios)))


class AutoRGN(Callback):
    """Measure the LR factors of the layers anew at the beginning of each epoch (see `auto_rgn`).

    They come in place of the strategy's own. They are in the binding's state, so that a training that goes on in the
    middle of an epoch has them; each process measures on its part of the data, and all take the mean.

    Args:
        batches: how many to measure on, ≥ 1.

    Raises:
        ValueError: `batches` < 1; in the fit, a gradient that is not finite.

    Example:
        >>> import paddle_ftstrat as hub
        >>> pairs = paddle.io.TensorDataset([paddle.randn([16, 3]), paddle.randint(0, 2, [16])])
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        >>> learner = hub.Learner(model, pairs, batch_size=8, progress=False)
        >>> _ = learner.fit(2, strategy=hub.DefaultStrategy(0.01), cbs=hub.AutoRGN())
        >>> max(learner.run.block_factors)
        1.0

    Source: as for `auto_rgn`.
    """

    def __init__(self, batches: int = 5) -> None:
        self.batches = _errors.check_whole("batches", batches, minimum=1)

    def on_epoch_begin(self, learner: Training) -> None:
        """Measure, unless the epoch was begun before.

        Raises:
            ValueError: the schedule has an LR for each layer group itself.
        """
        if learner.run.plan.schedules["lr"].shape:
            raise ValueError("AutoRGN gives the LR by depth, and so does this fit's schedule: leave one of them out")
        if learner.state.batch_number:
            return  # resumed inside the epoch: the factors are those of its beginning
        data.begin_epoch(learner.train, learner.state.epoch)
        with learner.precision.forward():
            ratios = _ratios(learner.model, learner.train, learner.loss, self.batches, learner.run.blocks)
        learner.run.block_factors = _normalised(distributed.added(ratios, learner.ranks))


def fisher(
    model: nn.Layer, loader: Any, loss: Any = None, batches: int | None = None, batch_size: int = 64
) -> dict[str, Any]:
    """How much each value of each weight matters to a task: the diagonal of the empirical Fisher information.

    F = mean over samples of g², g the gradient of one sample's loss, in eval mode with the data's own labels.
    Measured on the earlier task's data, for `bind(fisher=...)` of a strategy with `regularization={"EWC": λ}`. One
    backward per sample; nothing of the model, of its gradients or of the random numbers changes.

    Args:
        model: the model as the earlier task has left it.
        loader: that task's data: a DataLoader or Dataset of (inputs, label).
        loss: function (output, label) → scalar, as for `Learner`: a negative log-likelihood, such as cross entropy.
        batches: how many batches; None: all.
        batch_size: samples per batch where `loader` is a Dataset.

    Returns:
        Structured name → float32 tensor of the parameter's shape, of the weights that train.

    Raises:
        ValueError: no data, or a gradient that is not finite.

    Example:
        >>> model = nn.Linear(2, 1, weight_attr=nn.initializer.Constant(0.0))
        >>> pairs = paddle.io.TensorDataset([paddle.to_tensor([[1.0, 0.0], [3.0, 0.0]]), paddle.ones([2, 1])])
        >>> fisher(model, pairs)["weight"].tolist()  # ∂(x·w − 1)²/∂w = −2x at w = 0: the mean of 4 and 36
        [[20.0], [0.0]]

    Source: Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks" (arXiv:1612.00796).
    """
    if batches is not None:
        _errors.check_whole("batches", batches, minimum=1)
    weights = _trained(model)
    sums = {name: paddle.zeros(param.shape, "float32") for name, param in weights.items()}
    loader, seen = data.as_loader(loader, batch_size, shuffle=False, what="loader"), 0
    with rng.preserved():
        batched = islice(data.in_this_thread(loader), batches)
        samples = (_sample(batch, i) for batch in batched for i in range(data.batch_size_of(batch)))
        for grads in _gradients(model, samples, loss, weights):
            seen += 1
            for name, grad in grads.items():
                sums[name].add_(grad.square())
    return {name: total.scale(1 / seen) for name, total in sums.items()}


def _ratios(model: nn.Layer, loader: Any, loss: Any, batches: int, groups: Sequence[Sequence[str]]) -> list[float]:
    """‖g‖/‖w‖ of each group of weights, the mean over batches; 0.0 where there is none."""
    weights = _trained(model)
    norms = {name: _square(param) for name, param in weights.items()}
    found: list[list[float]] = []
    with rng.preserved():
        for grads in _gradients(model, islice(data.in_this_thread(loader), batches), loss, weights):
            squares = {name: _square(grad) for name, grad in grads.items()}
            parts = [[sum(part.get(name, 0.0) for name in group) for part in (squares, norms)] for group in groups]
            found.append([math.sqrt(g / w) if w else 0.0 for g, w in parts])
    return [sum(column) / len(found) for column in zip(*found)]


def _normalised(ratios: Sequence[float]) -> list[float]:
    largest = max(ratios)
    return [ratio / largest if ratio else 1.0 for ratio in ratios]


def _trained(model: nn.Layer) -> dict[str, Any]:
    weights = {name: param for name, param in select.named_weights(model).items() if not param.stop_gradient}
    if not weights:
        raise ValueError("all parameters are frozen: there is no gradient to measure")
    return weights


def _square(tensor: Any) -> float:
    return float(tensor.astype("float32").square().sum())


def _gradients(model: nn.Layer, batches: Any, loss: Any, weights: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The float32 gradients of each batch's loss, by name, of the weights that have one; theirs stay as they are."""
    model, none = _paddle.unwrap(model), True
    with differentiable(model):
        for batch in batches:
            inputs, label = split_batch(batch)
            value = evaluation.loss_of(loss, call(model, inputs), label)
            grads = zip(weights, paddle.grad(value, list(weights.values()), allow_unused=True))
            found = {name: grad.astype("float32") for name, grad in grads if grad is not None}
            bad = [name for name, grad in found.items() if not bool(paddle.isfinite(grad).all())]
            if bad:
                raise ValueError(f"the gradient of {_errors.listing(bad, 4)} is not finite: the loss is {float(value)}")
            none = False
            yield found
    if none:
        raise ValueError("loader gives no batch")


def _sample(batch: Any, index: int) -> Any:
    """One sample of a batch, as a batch of one."""
    return distributed.mapped(lambda one: one[index : index + 1] if isinstance(one, paddle.Tensor) else one, batch)
