"""What every strategy is: named, validated options that compile to a plan, bind to a model, and are plain data."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paddle import nn

from paddle_ftstrat import _errors, _files
from paddle_ftstrat.binding import Binding
from paddle_ftstrat.optim import methods, table
from paddle_ftstrat.optim.averaging import AVERAGES
from paddle_ftstrat.optim.perturbation import PERTURBATIONS
from paddle_ftstrat.plan import Plan
from paddle_ftstrat.schedules import curves
from paddle_ftstrat.schedules.schedule import check_steps
from paddle_ftstrat.strategies import plain_data
from paddle_ftstrat.strategies.search import SearchSpace


class _Recorded:
    """Keeps the arguments that it is built with, as they are before any constructor changes them."""

    _given: Mapping[str, Any] | None

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        self = super().__new__(cls)
        self._given = _by_name(cls, args, kwargs)
        return self


class DefaultStrategy(_Recorded):
    """An optimizer and a constant learning rate: lr(t) = η.

    Args:
        learning_rate: η > 0.
        optimizer_name: a name of the optimizer table (any case) or a `paddle.optimizer.Optimizer` class.
        averaging: an average of the weights: `{"EMA": decay}`, `{"SWA": start}`, or with all options as a dict.
        perturbation: gradients at moved weights: `{"FGM": ε}`, `{"PGD": {...}}` or `{"SAM": ρ}`.
        **kwargs: options of the optimizer (`beta1`, `momentum`, `epsilon`, …).

    Raises:
        ValueError: an unknown optimizer, option, average or perturbation, or η ≤ 0.
        TypeError: a learning rate that is not a number.

    Example:
        >>> DefaultStrategy(learning_rate=0.1, optimizer_name="momentum", momentum=0.8)
        DefaultStrategy(optimizer 'momentum', learning_rate 0.1, momentum=0.8)

    Source: PaddleHub 1.8 `finetune/strategy.py`.
    """

    def __init__(
        self,
        learning_rate: float = 1e-4,
        optimizer_name: str | type = "adam",
        *,
        averaging: Mapping[str, Any] | None = None,
        perturbation: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.learning_rate = _errors.check_number("learning_rate", learning_rate, above=0)
        self.optimizer_name = optimizer_name
        self.optimizer_options = kwargs
        self.averaging = None if averaging is None else methods.make("averaging", averaging, AVERAGES)
        self.perturbation = None
        if perturbation is not None:
            self.perturbation = methods.make("perturbation", perturbation, PERTURBATIONS)
        row = table.find(optimizer_name)
        table.check_options(row, kwargs)
        table.checked_values(row, kwargs)

    def plan(self, max_train_steps: int | None = None, steps_per_epoch: int | None = None) -> Plan:
        """The plan of this strategy for a training of `max_train_steps` updates, `steps_per_epoch` in each epoch."""
        if max_train_steps is not None:
            check_steps(max_train_steps)
        if self.averaging is not None:
            self.averaging.begins(max_train_steps)
        return Plan(
            {"lr": curves.constant(self.learning_rate)},
            max_train_steps=max_train_steps,
            optimizer=self.optimizer_name,
            optimizer_options=self.optimizer_options,
            averaging=self.averaging,
            perturbation=self.perturbation,
        )

    def bind(
        self,
        model: nn.Layer,
        max_train_steps: int | None = None,
        num_epoch: int | None = None,
        steps_per_epoch: int | None = None,
        sample_input: Any = None,
        pretrained: Any = None,
        layers: Sequence[Any] | None = None,
        no_decay: Any = None,
        fused: bool | None = None,
        fisher: Mapping[str, Any] | None = None,
        accelerate: bool | None = None,
    ) -> Binding:
        """Put the strategy in force on a model: parameter settings, optimizer, clip and LR scheduler.

        Args:
            model: the model to train.
            max_train_steps: T, the number of updates; else num_epoch · steps_per_epoch. Only schedules need it.
            num_epoch, steps_per_epoch: number of epochs, and updates per epoch.
            sample_input: one input (tensor, tuple or dict), to find the order in which layers run; else as registered.
            pretrained: selectors of the parameters that came from pretraining, their state dict, or the report of
                `load_pretrained`: L2SP anchors these. Without it, what `load_pretrained` filled; if that is nothing,
                all parameters, with a warning.
            layers: the layers by hand, bottom first, each a selector (glob, sublayer name, regex, function, layer).
            no_decay: selectors of parameters that decoupled decay skips, `[]` for none; else biases and normalisation.
            fused: False for Paddle's operations; else one fused pass where that fits, True refusing where it never can.
            fisher: for EWC, what `hub.fisher` gives: parameter name → how much each of its values matters.
            accelerate: False for Paddle's layers as they are; else `hub.accelerate`, True refusing where none can be.

        Returns:
            The binding: `run.optimizer`, `run.lr_scheduler`, `run.begin_epoch()`, `run.step()`.

        Raises:
            ValueError, TypeError: anything wrong, before anything is changed.

        Example:
            >>> import paddle
            >>> run = DefaultStrategy(0.1, "sgd").bind(paddle.nn.Linear(2, 2))
            >>> run.optimizer.get_lr()
            0.1
        """
        counts = {"max_train_steps": max_train_steps, "num_epoch": num_epoch, "steps_per_epoch": steps_per_epoch}
        steps, epochs, per_epoch = (
            None if count is None else _errors.check_whole(name, count, minimum=1) for name, count in counts.items()
        )
        if steps is None and epochs is not None and per_epoch is not None:
            steps = epochs * per_epoch
        return Binding(
            self.plan(steps, per_epoch),
            model,
            steps_per_epoch=per_epoch,
            sample_input=sample_input,
            pretrained=pretrained,
            layers=layers,
            no_decay=no_decay,
            fused=fused,
            fisher=fisher,
            accelerate=accelerate,
        )

    def suggest_space(self) -> SearchSpace:
        """The numbers of this strategy that are worth a search, with a range around each (see `SearchSpace`).

        Raises:
            ValueError: the strategy cannot be written as plain data.

        Example:
            >>> list(DefaultStrategy(1e-4).suggest_space())
            ['learning_rate']
        """
        return SearchSpace(self)

    def to_dict(self) -> dict[str, Any]:
        """The strategy as a dict: `strategy`, its class, and the arguments it was given.

        What `add_scheduler`, `add_regularization` and `add_clip` changed since stands under `scheduler`,
        `regularization` and `clip`, for the presets too. An optimizer class is written as "module:Class".

        Raises:
            ValueError: something that plain data cannot say: a class defined inside a function, an option that is an
                object.

        Example:
            >>> import paddle_ftstrat as hub
            >>> hub.ULMFiTStrategy(learning_rate=1e-3, frz_blocks=0).add_clip("Norm", 2.0).to_dict()
            {'strategy': 'ULMFiTStrategy', 'learning_rate': 0.001, 'frz_blocks': 0, 'clip': {'Norm': 2.0}}
        """
        if self._given is None:
            raise ValueError(f"{type(self).__name__} takes *args, which have no names to be written under")
        changed = plain_data.changed(self, type(self)(**_copied(self._given)), self._given)
        written = {key: plain_data.written(key, value) for key, value in {**self._given, **changed}.items()}
        return {"strategy": plain_data.name_of(type(self)), **written}

    def to_yaml(self, path: str | Path | None = None) -> str:
        """The strategy as YAML, written to `path` where one is given.

        Raises:
            ImportError: PyYAML is not installed.
            ValueError: as for `to_dict`.

        Example:
            >>> import paddle_ftstrat as hub
            >>> print(hub.DefaultStrategy(learning_rate=0.1, optimizer_name="sgd").to_yaml(), end="")
            strategy: DefaultStrategy
            learning_rate: 0.1
            optimizer_name: sgd
        """
        text: str = plain_data.yaml().safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)
        if path is not None:
            with _files.replacing(path) as file:
                file.write(text.encode("utf-8"))
        return text

    @classmethod
    @_errors.short_messages()
    def from_dict(cls, given: Mapping[str, Any], trust: bool = False) -> Any:
        """The strategy that a dict describes; the inverse of `to_dict`.

        Args:
            given: `strategy`, a class of this library or "module:Class", and arguments of its constructor, among them
                options of the optimizer. `scheduler`, `regularization` and `clip` are added to a preset's own.
            trust: import what "module:Class" names outside this library, which runs that module. Default: refuse it.

        Raises:
            ValueError: an unknown class or key (with the nearest known one), a value out of range, a class that is not
                one of the class that was asked, or code of others without `trust`.
            TypeError: not a dict, or a value of the wrong type.

        Example:
            >>> import paddle_ftstrat as hub
            >>> hub.DefaultStrategy.from_dict({"strategy": "L2SPFinetuneStrategy", "regularization_coeff": 0.01})
            L2SPFinetuneStrategy(optimizer 'adam', learning_rate 0.0001, L2SP 0.01)
        """
        if not isinstance(given, Mapping):
            raise TypeError(f"a strategy is a dict with the key 'strategy', not {_errors.shown_with_type(given)}")
        entries = {str(key): _copied(value) for key, value in given.items()}
        built = plain_data.strategy_class(entries, DefaultStrategy, trust)
        if not issubclass(built, cls):
            raise ValueError(f"the dict describes a {built.__name__}, which is not a {cls.__name__}")
        later = plain_data.prepare(built, entries, trust)
        strategy = built(**entries)
        for section, values in later.items():
            for key, value in values.items():
                getattr(strategy, f"add_{section}")(key, value)
        return strategy

    @classmethod
    @_errors.short_messages()
    def from_yaml(cls, path_or_text: str | Path, trust: bool = False) -> Any:
        """The strategy that a YAML or JSON file, or such a text, describes.

        Args:
            path_or_text: a path, or the text itself: what has a line break or a `:` and names no file.
            trust: as for `from_dict`.

        Raises:
            FileNotFoundError: no such file.
            ImportError: PyYAML is not installed; a `.json` file does without.
            ValueError, TypeError: text that is no YAML, a key that occurs twice, more than a strategy needs (200,000
                bytes, 10,000 entries, values of 1,000 characters), no regular file, and all that `from_dict` refuses.

        Example:
            >>> import paddle_ftstrat as hub
            >>> hub.DefaultStrategy.from_yaml("strategy: DefaultFinetuneStrategy\\nlearning_rate: 1e-3")
            DefaultFinetuneStrategy(optimizer 'adam', learning_rate 0.001, L2 0.001)
        """
        return cls.from_dict(plain_data.read(path_or_text), trust)

    def __repr__(self) -> str:
        optimizer = getattr(self.optimizer_name, "__name__", self.optimizer_name)
        parts = [f"optimizer {optimizer!r}", f"learning_rate {self.learning_rate:g}"]
        parts += [f"{name}={value!r}" for name, value in self.optimizer_options.items()]
        parts += [*self._more(), *(str(member) for member in (self.averaging, self.perturbation) if member)]
        return f"{type(self).__name__}({', '.join(parts)})"

    def _more(self) -> list[str]:
        """What `repr` tells beside the optimizer."""
        return []


def strategy_from_dict(given: Mapping[str, Any], trust: bool = False) -> Any:
    """The strategy that a dict describes.

    Args:
        given, trust: as for `DefaultStrategy.from_dict`, which says what is refused.

    Example:
        >>> import paddle_ftstrat as hub
        >>> strategy = hub.ULMFiTStrategy(learning_rate=1e-3)
        >>> strategy_from_dict(strategy.to_dict()).scheduler == strategy.scheduler
        True
    """
    return DefaultStrategy.from_dict(given, trust)


def strategy_from_yaml(path_or_text: str | Path, trust: bool = False) -> Any:
    """The strategy that a YAML or JSON file or text describes.

    Args:
        path_or_text, trust: as for `DefaultStrategy.from_yaml`, which says what is refused.

    Example:
        >>> strategy_from_yaml("{strategy: DefaultStrategy, optimizer_name: sgd}")
        DefaultStrategy(optimizer 'sgd', learning_rate 0.0001)
    """
    return DefaultStrategy.from_yaml(path_or_text, trust)


def _copied(value: Any) -> Any:
    """A value whose dicts and lists are its own."""
    if isinstance(value, Mapping):
        return {key: _copied(entry) for key, entry in value.items()}
    return [_copied(entry) for entry in value] if isinstance(value, list) else value


def _by_name(cls: type[Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """A copy of what a constructor is called with, by name; None where some of it has no name."""
    signature = inspect.signature(cls.__init__)
    try:
        _, *bound = signature.bind(None, *args, **kwargs).arguments.items()
    except TypeError:
        return {}  # for __init__ to refuse
    given: dict[str, Any] = {}
    for name, value in bound:
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            return None
        given.update(value if kind is inspect.Parameter.VAR_KEYWORD else {name: value})
    return _copied(given)
