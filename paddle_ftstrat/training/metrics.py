"""Metrics that go by a name: scikit-learn's, scipy's, Paddle's and seqeval's, for each kind of task."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import paddle
from paddle.metric import Accuracy, Metric

from paddle_ftstrat import _errors
from paddle_ftstrat.optim.masters import wide

IGNORED = -100  # the label that counts for nothing
# What an output means (one class per row, any number of labels per row, a number per row, a class per token), and the
# names of its metrics.
_NAMES = {
    "classes": ("acc", "f1", "precision", "recall", "matthews"),
    "labels": ("auc", "acc", "f1", "precision", "recall"),
    "values": ("spearman", "pearson", "mse", "mae", "r2"),
    "tokens": ("acc", "f1", "precision", "recall", "token_f1", "token_precision", "token_recall"),
}
KINDS = tuple(_NAMES)
_MACRO = {"average": "macro", "zero_division": 0}
_FUNCTIONS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "acc": ("accuracy_score", {}),
    "auc": ("roc_auc_score", {"average": "macro"}),
    "f1": ("f1_score", _MACRO),
    "precision": ("precision_score", _MACRO),
    "recall": ("recall_score", _MACRO),
    "matthews": ("matthews_corrcoef", {}),
    "mse": ("mean_squared_error", {}),
    "mae": ("mean_absolute_error", {}),
    "r2": ("r2_score", {}),
    "spearman": ("spearmanr", {}),
    "pearson": ("pearsonr", {}),
}
# Where functions come from: what to install, with which extra of ours.
_PACKAGES = {
    "sklearn.metrics": ("scikit-learn>=1.0", "metrics"),
    "scipy.stats": ("scipy", "metrics"),
    "seqeval.metrics": ("seqeval>=1.2", "sequence"),
}
_TAG = re.compile(r"O$|[BIESLUM]-")

Score = Callable[[Any, Any], float]


def names(kind: str) -> tuple[str, ...]:
    """The names that a kind of task knows.

    Example:
        >>> names("labels")
        ('auc', 'acc', 'f1', 'precision', 'recall')
    """
    return _NAMES[kind]


def make(name: str, kind: str | None, label_list: Sequence[str] | None = None, ignore_index: int = IGNORED) -> Metric:
    """The metric of a name.

    Args:
        name: one of `names(kind)`.
        kind: "classes" (logits [..., classes], labels [...]), "labels" (logits and 0/1 labels [batch, labels]),
            "values" (outputs and labels of the same number of entries), "tokens" (logits [batch, length, classes],
            labels [batch, length]) or None: the first of these that knows the name.
        label_list: names of the classes, for chunks of tokens: `O`, `B-…`, `I-…`.
        ignore_index: the label of tokens that do not count.

    Raises:
        ValueError: an unknown name, or chunks without names of that form.
        ImportError: the package it comes from is not installed.
    """
    allowed = names(kind) if kind else tuple(dict.fromkeys(known for each in KINDS for known in names(each)))
    if name not in allowed:
        raise ValueError(_errors.unknown("metric", name, allowed))
    kind = kind or next(each for each in KINDS if name in names(each))
    if kind == "tokens":
        return _of_tokens(name, label_list, ignore_index)
    if kind == "classes":
        return Accuracy(name="acc") if name == "acc" else Collected(name, _read_classes, _score(name))
    if kind == "values":
        correlates = name in ("spearman", "pearson")
        return Collected(name, _read_values, _correlation(_score(name, "scipy.stats")) if correlates else _score(name))
    if name == "auc":
        return Collected(name, lambda output, label: (array(output), array(label)), _area(_score(name)))
    return Collected(name, _read_decisions, _score(name))


def of_function(function: Callable[[Any, Any], float]) -> Metric:
    """The metric of a function (outputs, labels) → number, called once with the tensors of a whole evaluation."""
    name = getattr(function, "__name__", type(function).__name__)
    return Collected(name, lambda output, label: (output, label), lambda labels, outputs: function(outputs, labels))


class Collected(Metric):
    """A score (labels, predictions) → number of a whole evaluation.

    What it keeps of each batch is what `read(output, label)` gives: predictions and labels, as tensors, as arrays, or
    as lists with an entry per sample.
    """

    def __init__(self, name: str, read: Callable[[Any, Any], tuple[Any, Any]], score: Score) -> None:
        super().__init__()
        self._name, self._read, self._score = name, read, score
        self.reset()

    def name(self) -> str:
        """The metric's name."""
        return self._name

    def reset(self) -> None:
        """Forget all batches."""
        self._predictions: list[Any] = []
        self._labels: list[Any] = []

    def compute(self, output: Any, label: Any, *args: Any) -> tuple[Any, Any]:
        """Predictions and labels of one batch."""
        return self._read(output, label)

    def update(self, predictions: Any, labels: Any, *args: Any) -> None:
        """Keep one batch."""
        self._predictions.append(predictions)
        self._labels.append(labels)

    def accumulate(self) -> float:
        """The score of all batches; NaN without one."""
        if not self._labels:
            return float("nan")
        return float(self._score(_joined(self._labels), _joined(self._predictions)))


def _read_classes(output: Any, label: Any) -> tuple[np.ndarray, np.ndarray]:
    return array(output).argmax(-1).reshape(-1), label.numpy().reshape(-1)


def _read_decisions(output: Any, label: Any) -> tuple[np.ndarray, np.ndarray]:
    return (array(output) > 0).astype("int64"), (array(label) > 0.5).astype("int64")


def _read_values(output: Any, label: Any) -> tuple[np.ndarray, np.ndarray]:
    return array(output).reshape(-1), array(label).reshape(-1)


def _joined(parts: list[Any]) -> Any:
    if isinstance(parts[0], paddle.Tensor):
        return paddle.concat(parts)
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else [entry for part in parts for entry in part]


def _score(name: str, module: str = "sklearn.metrics", options: Mapping[str, Any] | None = None) -> Score:
    """Function (labels, predictions) → number of another package."""
    function, usual = _FUNCTIONS[name]
    options = usual if options is None else options
    package, extra = _PACKAGES[module]
    with _errors.needed(f"metric {name!r} needs {package}", extra):
        score = getattr(import_module(module), function)
        if unknown := options.keys() - inspect.signature(score).parameters.keys():
            raise ImportError(f"{function} of the version that is installed has no {', '.join(sorted(unknown))}")
    return lambda labels, predictions: score(labels, predictions, **options)


def _area(score: Score) -> Score:
    def area(labels: np.ndarray, logits: np.ndarray) -> float:
        # It depends on the order only, which the sigmoid keeps. A label that all samples have, or none, has no curve.
        both = [column for column in range(labels.shape[1]) if len(np.unique(labels[:, column])) == 2]
        return score(labels[:, both], logits[:, both]) if both else float("nan")

    return area


def _correlation(score: Callable[[Any, Any], Any]) -> Score:
    def correlation(labels: np.ndarray, predictions: np.ndarray) -> float:
        with warnings.catch_warnings():
            # Constant predictions correlate with nothing: the value is NaN, which says it.
            warnings.simplefilter("ignore")
            return score(labels, predictions)[0] if len(labels) > 1 else float("nan")

    return correlation


def _of_tokens(name: str, label_list: Sequence[str] | None, ignore_index: int) -> Metric:
    def flat(output: Any, label: Any) -> tuple[np.ndarray, np.ndarray]:
        predictions, labels = _read_classes(output, label)
        counts = labels != ignore_index
        return predictions[counts], labels[counts]

    if name == "acc" or name.startswith("token_"):
        return Collected(name, flat, _score(name.removeprefix("token_")))
    strange = [repr(tag) for tag in label_list or () if not _TAG.match(str(tag))]
    if label_list is None or strange:
        raise ValueError(
            f"metric {name!r} counts chunks, for which label_list has to hold tags (O, B-PER, I-PER, …): "
            f"{f'{strange[0]} is none' if strange else 'there is no label_list'}; 'token_{name}' counts tokens"
        )
    tags = label_list

    def rows(output: Any, label: Any) -> tuple[list[list[str]], list[list[str]]]:
        predictions, labels = array(output).argmax(-1), label.numpy().reshape(label.shape[:2])

        def tagged(numbers: np.ndarray) -> list[list[str]]:
            return [[tags[i] for i in row[counts]] for row, counts in zip(numbers, labels != ignore_index)]

        return tagged(predictions), tagged(labels)

    return Collected(name, rows, _score(name, "seqeval.metrics", {"zero_division": 0}))


def array(tensor: Any) -> np.ndarray:
    """A tensor as a numpy array, half precision as float32."""
    return wide(tensor).numpy()
