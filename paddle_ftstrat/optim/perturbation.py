"""Perturbed weights in further passes of an update: the methods by name, and what goes through one of them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import paddle
from paddle import nn

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat._paddle import layers, pointers
from paddle_ftstrat.optim.masters import is_half, wide
from paddle_ftstrat.optim.methods import Method, registering
from paddle_ftstrat.param_attr import select

PERTURBATIONS: dict[str, type[Perturbation]] = {}
register = registering(PERTURBATIONS, "a perturbation")


@dataclass(frozen=True)
class Perturbation(Method):
    """A method that computes gradients again where the weights are moved.

    A frozen dataclass that is derived from this and entered with `@perturbation.register("name")` is known to
    strategies, files, `ftstrat list` and `explain`.

    Attributes:
        same_draws: whether dropout and all else that draws numbers does so alike in all passes.

    Example:
        >>> @register("away_for_doctest")
        ... @dataclass(frozen=True)
        ... class Away(Perturbation):
        ...     def passes(self, moved, params):
        ...         with kept(moved):
        ...             for weight in moved:
        ...                 shift(weight, 0.1, weight.grad)
        ...             yield
        >>> PERTURBATIONS.pop("away_for_doctest").name
        'away_for_doctest'
    """

    same_draws: ClassVar[bool] = False

    def names(self, model: nn.Layer) -> set[str]:
        """The structured names of the weights that it moves; all by default. ValueError where there is none."""
        return set(select.named_weights(model))

    def passes(self, moved: Sequence[Any], params: Sequence[Any]) -> Iterator[None]:
        """Move weights and `yield` for each further pass; at the end weights are as before, and gradients the update's.

        What a pass gives is added to the gradients that there are (see `taken` and `given_back`).

        Args:
            moved: the weights to move; they have gradients, of the plain pass.
            params: all weights that have gradients.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class OfEmbeddings(Perturbation):
    """Base of the methods that move embeddings.

    Args:
        epsilon: ε > 0, how far.
        where: selectors of the weights (globs, layers, regexes, functions), in a file a glob or a list of them; None:
            those of all `paddle.nn.Embedding` layers.
    """

    epsilon: float = 1.0
    where: Any = None

    def __post_init__(self) -> None:
        _errors.check_number("epsilon", self.epsilon, above=0)

    def names(self, model: nn.Layer) -> set[str]:
        """What `where` selects."""
        if self.where is not None:
            return select.select_all(model, self.where, f"perturbation.{self.name}.where")
        found = {
            id(layer.weight)
            for _, layer in select.every_layer(_paddle.unwrap(model))
            if isinstance(layer, nn.Embedding)
        }
        names = {name for name, param in select.named_weights(model).items() if id(param) in found}
        if not names:
            raise ValueError(
                f"perturbation {self.name} moves embeddings, but the model has no paddle.nn.Embedding: say where= with "
                "a glob of the weights to move, or take SAM, which moves all"
            )
        return names


@register("FGM")
@dataclass(frozen=True)
class FGM(OfEmbeddings):
    """Fast gradient method: the gradient at w, and added to it that at w + ε·g/‖g‖, for each embedding matrix.

    Args: as `OfEmbeddings`.

    Raises:
        ValueError: ε ≤ 0.
        TypeError: ε is no number.

    Source: Miyato, Dai & Goodfellow, "Adversarial Training Methods for Semi-Supervised Text Classification"
    (arXiv:1605.07725), whose norm is that of each text's embedded words.
    """

    def passes(self, moved: Sequence[Any], params: Sequence[Any]) -> Iterator[None]:
        """One further pass."""
        with kept(moved):
            for weight in moved:
                shift(weight, self.epsilon / norm([weight.grad]), weight.grad)
            yield


@register("PGD")
@dataclass(frozen=True)
class PGD(OfEmbeddings):
    """Projected gradient descent: `steps` passes, each α·g/‖g‖ further, at most ε from w; the last gradient is added.

    Args:
        epsilon, where: as `OfEmbeddings`.
        alpha: α > 0, the length of a move.
        steps: how many moves, ≥ 1.

    Raises:
        ValueError: a number out of range.
        TypeError: something that is not a (whole) number.

    Source: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks" (arXiv:1706.06083).
    """

    alpha: float = 0.3
    steps: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        _errors.check_number("alpha", self.alpha, above=0)
        _errors.check_whole("steps", self.steps, minimum=1)

    def passes(self, moved: Sequence[Any], params: Sequence[Any]) -> Iterator[None]:
        """`steps` further passes."""
        with kept(moved) as own:
            for step in range(self.steps):
                for weight, at in zip(moved, own):
                    shift(weight, self.alpha / norm([weight.grad]), weight.grad)
                    away = wide(weight.detach()) - wide(at)
                    length = norm([away])
                    if length > self.epsilon:
                        paddle.assign(at, output=weight)
                        shift(weight, self.epsilon / length, away)
                grads = taken(params)
                if step == 0:
                    plain = grads
                if step == self.steps - 1:
                    given_back(params, plain)
                yield


@register("SAM")
@dataclass(frozen=True)
class SAM(Perturbation):
    """Sharpness-aware minimisation: the gradient at w + ρ·g/‖g‖, over all weights together, in place of that at w.

    The gradient g is that of the whole update, over accumulated batches and all processes.

    Args:
        rho: ρ > 0.

    Raises:
        ValueError: ρ ≤ 0.
        TypeError: ρ is no number.

    Source: Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization" (arXiv:2010.01412,
    eq. 3), whose ε(w) is taken of each processor's share of the batch.
    """

    rho: float = 0.05
    same_draws: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _errors.check_number("rho", self.rho, above=0)

    def passes(self, moved: Sequence[Any], params: Sequence[Any]) -> Iterator[None]:
        """One further pass."""
        with kept(moved):
            grads = taken(params)
            length = norm(grads)
            for weight, grad in zip(params, grads):
                shift(weight, self.rho / length, grad)
            yield


@contextmanager
def kept(weights: Sequence[Any]) -> Iterator[list[Any]]:
    """Weights that may move inside and are afterwards, after an error too, exactly what they were; gives copies."""
    own = [weight.detach().clone() for weight in weights]
    try:
        yield own
    finally:
        with paddle.no_grad():
            for weight, value in zip(weights, own):
                paddle.assign(value, output=weight)


def norm(tensors: Iterable[Any]) -> float:
    """The 2-norm over tensors together; ∞ where it is 0, so that dividing by it moves nothing."""
    with paddle.no_grad():
        flat = [wide(tensor).reshape([-1]) for tensor in tensors]
        # A product needs no memory for the squares.
        squares = [paddle.dot(values, values).reshape([1]) for values in flat]
        return float(paddle.add_n(squares).sqrt().item()) or float("inf")


def shift(weight: Any, scale: float, direction: Any) -> None:
    """w ← w + scale·direction."""
    with paddle.no_grad():
        away = wide(direction) * scale
        if is_half(weight):
            # The CPU adds nothing in half precision.
            paddle.assign((wide(weight) + away).astype(weight.dtype), output=weight)
        else:
            weight.add_(away)


def taken(params: Iterable[Any]) -> list[Any]:
    """The gradients, None for none, which the parameters do not have any more."""
    params = list(params)
    grads = [None if param.grad is None else pointers.hold_memory([param.grad])[0] for param in params]
    for param in params:
        param.clear_gradient(False)
    return grads


def given_back(params: Sequence[Any], grads: Sequence[Any]) -> None:
    """Add gradients to those that the parameters have."""
    with paddle.no_grad():
        for param, grad in zip(params, grads):
            if grad is not None:
                param.grad = grad if param.grad is None else param.grad + grad


class Perturbing:
    """Goes through the passes of a method's updates on a model.

    Args:
        rule: the method; None: every update has one pass.
        model: the model.

    Attributes:
        at: where the update is: "" before its first pass, "inside" in its passes, "done" after them.

    Raises:
        ValueError: there is nothing to move, or an embedding has sparse gradients.
    """

    def __init__(self, rule: Perturbation | None, model: nn.Layer) -> None:
        self.rule, self.at = rule, ""
        self._model = model
        self._weights = select.named_weights(model)
        self._moved = set() if rule is None else rule.names(model)
        sublayers = model.named_sublayers(include_self=True)
        sparse = [n for n, layer in sublayers if _paddle.is_sparse_embedding(layer) and not layer.weight.stop_gradient]
        if sparse and rule is not None:
            raise ValueError(f"perturbation {rule.name} needs dense gradients: build {sparse} with sparse=False")

    def passes(self) -> Generator[None, None, None]:
        """One `yield` for each further pass, with the weights moved; statistics of BatchNorm move in none of them.

        The gradients of the plain pass have to be there, over all batches and processes of the update.
        """
        params = {n: p for n, p in self._weights.items() if not p.stop_gradient and p.grad is not None}
        moved = [param for name, param in params.items() if name in self._moved]
        with self._inside():
            if self.rule is not None and moved:
                with kept(layers.moving_statistics(self._model)):
                    yield from self.rule.passes(moved, list(params.values()))

    def losses(self, loss_of: Callable[..., Any], batches: Iterable[Any] | None) -> Iterator[Any]:
        """The losses of an update, pass by pass (see `Binding.losses`)."""
        calls = [()] if batches is None else [(batch,) for batch in batches]
        same, states = self.rule is not None and self.rule.same_draws, []
        # Of batches before, whose own passes are over.
        params = list(self._weights.values())
        earlier = [] if self.rule is None else taken(params)
        with self._inside():
            for arguments in calls:
                states.append(paddle.get_rng_state() if same else None)
                yield loss_of(*arguments)
            for _ in self.passes():
                for arguments, state in zip(calls, states):
                    if state is not None:
                        paddle.set_rng_state(state)
                    yield loss_of(*arguments)
        given_back(params, earlier)

    @contextmanager
    def _inside(self) -> Iterator[None]:
        self.at = "inside"
        try:
            yield
            self.at = "done"
        finally:
            # What was broken off is no update's.
            self.at = "" if self.at == "inside" else self.at

    def check(self) -> None:
        """Refuse an update inside the loop over the losses, or one without that loop; let the next one begin."""
        if self.at == "inside":
            self.at = ""
            raise RuntimeError("run.step() inside the loop over run.losses(...): the update belongs after the loop")
        if self.rule is not None and not self.at:
            raise RuntimeError(
                f"the strategy has perturbation {self.rule.name}, but the gradients are of a plain pass: compute them "
                "in `for loss in run.losses(lambda: …): loss.backward()`, or train by a Learner or task"
            )
        self.at = ""
