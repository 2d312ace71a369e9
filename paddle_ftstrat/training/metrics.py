"""Metrics that go by a name: scikit-learn's, scipy's, Paddle's and seqeval's, for each kind of task."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from paddle.metric import Accuracy, Metric

from paddle_ftstrat import _errors

IGNORED = -100  # the label that counts for nothing
HALVES = ("bfloat16", "float16")
# What an output means: one class per row, any number of labels per row, a number per row, a class per token.
KINDS = ("classes", "labels", "values", "tokens")

_MACRO = {"average": "macro", "zero_division": 0}
_CLASSES = {
    "f1": ("f1_score", {"average": "macro"}),
    "precision": ("precision_score", _MACRO),
    "recall": ("recall_score", _MACRO),
    "matthews": ("matthews_corrcoef", {}),
}
_LABELS = {"acc": ("accuracy_score", {}), "f1": ("f1_score", _MACRO)}
_LABELS.update({name: _CLASSES[name] for name in ("precision", "recall")})
_VALUES = {"mse": ("mean_squared_error", {}), "mae": ("mean_absolute_error", {}), "r2": ("r2_score", {})}
_CORRELATIONS = {"spearman": "spearmanr", "pearson": "pearsonr"}
_CHUNKS = {"f1": "f1_score", "precision": "precision_score", "recall": "recall_score"}
_TAG = re.compile(r"O$|[BIESLUM]-")

Read = Callable[[Any, Any], "tuple[Any, Any]"]


def names(kind: str) -> tuple[str, ...]:
    """The names that a kind of task knows.

    Example:
        >>> names("labels")
        ('auc', 'acc', 'f1', 'precision', 'recall')
    """
    return {
        "classes": ("acc", *_CLASSES),
        "labels": ("auc", *_LABELS),
        "values": (*_CORRELATIONS, *_VALUES),
        "tokens": ("acc", *_CHUNKS, *(f"token_{name}" for name in _CHUNKS)),
    }[kind]


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
    if kind == "classes":
        return Accuracy(name="acc") if name == "acc" else Collected(name, _read_classes, _sklearn(name, _CLASSES))
    if kind == "labels":
        if name == "auc":
            return Collected(name, _read_probabilities, _auc())
        return Collected(name, _read_decisions, _sklearn(name, _LABELS))
    if kind == "values":
        score = _correlation(name) if name in _CORRELATIONS else _sklearn(name, _VALUES)
        return Collected(name, _read_values, score)
    return _of_tokens(name, label_list, ignore_index)


class Collected(Metric):
    """A score of a whole evaluation, of which only predictions and labels are kept, not the outputs.

    Args:
        name: its name.
        read: (output, label) of one batch → its predictions and labels: arrays, or lists with an entry per sample.
        score: function (labels, predictions) of the whole evaluation → number.
    """

    def __init__(self, name: str, read: Read, score: Callable[[Any, Any], float]) -> None:
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


def _read_probabilities(output: Any, label: Any) -> tuple[np.ndarray, np.ndarray]:
    # The area under the curve depends on the order only, which the sigmoid keeps.
    return array(output), array(label)


def _read_decisions(output: Any, label: Any) -> tuple[np.ndarray, np.ndarray]:
    return (array(output) > 0).astype("int64"), (array(label) > 0.5).astype("int64")


def _read_values(output: Any, label: Any) -> tuple[np.ndarray, np.ndarray]:
    return array(output).reshape(-1), array(label).reshape(-1)


def _joined(parts: list[Any]) -> Any:
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else [entry for part in parts for entry in part]


def _needs(name: str, package: str, extra: str) -> ImportError:
    return ImportError(f"metric {name!r} needs {package}: pip install 'paddle_ftstrat[{extra}]'")


def _sklearn(name: str, table: Mapping[str, tuple[str, dict[str, Any]]]) -> Callable[[Any, Any], float]:
    try:
        from sklearn import metrics
    except ImportError as error:
        raise _needs(name, "scikit-learn", "metrics") from error
    function, options = table[name]

    def score(labels: Any, predictions: Any) -> float:
        return getattr(metrics, function)(labels, predictions, **options)

    return score


def _auc() -> Callable[[Any, Any], float]:
    area = _sklearn("auc", {"auc": ("roc_auc_score", {"average": "macro"})})

    def score(labels: np.ndarray, logits: np.ndarray) -> float:
        # A label that all samples have, or none, has no curve.
        both = [column for column in range(labels.shape[1]) if len(np.unique(labels[:, column])) == 2]
        return area(labels[:, both], logits[:, both]) if both else float("nan")

    return score


def _correlation(name: str) -> Callable[[Any, Any], float]:
    try:
        from scipy import stats
    except ImportError as error:
        raise _needs(name, "scipy", "metrics") from error

    def score(labels: np.ndarray, predictions: np.ndarray) -> float:
        if len(labels) < 2:
            return float("nan")
        with warnings.catch_warnings():
            # Constant predictions correlate with nothing: the value is NaN, which says it.
            warnings.simplefilter("ignore")
            return getattr(stats, _CORRELATIONS[name])(labels, predictions)[0]

    return score


def _of_tokens(name: str, label_list: Sequence[str] | None, ignore_index: int) -> Metric:
    def flat(output: Any, label: Any) -> tuple[np.ndarray, np.ndarray]:
        predictions, labels = _read_classes(output, label)
        counts = labels != ignore_index
        return predictions[counts], labels[counts]

    if name == "acc":
        return Collected(name, flat, _sklearn(name, {"acc": ("accuracy_score", {})}))
    if name.startswith("token_"):
        inner = name[len("token_") :]
        return Collected(name, flat, _sklearn(inner, {**_CLASSES, "f1": ("f1_score", _MACRO)}))
    score = _chunks(name, label_list)

    def rows(output: Any, label: Any) -> tuple[list[list[str]], list[list[str]]]:
        predictions, labels = array(output).argmax(-1), label.numpy().reshape(label.shape[:2])
        kept = [row != ignore_index for row in labels]
        return tuple(
            [[label_list[i] for i in row[at]] for row, at in zip(some, kept)] for some in (predictions, labels)
        )

    return Collected(name, rows, score)


def _chunks(name: str, label_list: Sequence[str] | None) -> Callable[[Any, Any], float]:
    strange = None if label_list is None else next((tag for tag in label_list if not _TAG.match(str(tag))), None)
    if label_list is None or strange is not None:
        what = "there is no label_list" if label_list is None else f"{strange!r} is none"
        raise ValueError(
            f"metric {name!r} counts chunks, for which label_list has to hold tags (O, B-PER, I-PER, …): {what}; "
            f"'token_{name}' counts tokens"
        )
    try:
        from seqeval import metrics
    except ImportError as error:
        raise _needs(name, "seqeval", "sequence") from error
    options = {"zero_division": 0}
    return lambda labels, predictions: getattr(metrics, _CHUNKS[name])(labels, predictions, **options)


def array(tensor: Any) -> np.ndarray:
    """A tensor as a numpy array, half precision as float32."""
    return (tensor.astype("float32") if dtype_name(tensor.dtype) in HALVES else tensor).numpy()


def dtype_name(dtype: Any) -> str:
    """`float16`, of `paddle.float16` on every version."""
    return str(dtype).rpartition(".")[2]
