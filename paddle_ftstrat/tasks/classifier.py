"""The tasks whose samples have one class, any number of labels, a number, or a class for each token."""

from __future__ import annotations

from typing import Any

import paddle
from paddle import nn
from paddle.metric import Metric

from paddle_ftstrat import _errors
from paddle_ftstrat.tasks.base import BaseTask
from paddle_ftstrat.tasks.config import RunConfig
from paddle_ftstrat.training import evaluation


class ClassifierTask(BaseTask):
    """Classification: cross entropy over logits of shape [batch, classes], labels int64 [batch] or [batch, 1].

    `predict(…, return_result=True)` gives the name of each sample's class, or its number where there are no names.

    Args:
        model: returns logits of shape [batch, classes], alone, first in a tuple or as `logits` of a dict.
        dataset, config: see `BaseTask`.
        metrics_choices: metrics, the first of which chooses the best model: `acc` (the default), `f1`, `precision`,
            `recall` (means over the classes), `matthews`, functions, or `paddle.metric.Metric`s.
        num_classes: number of classes that the model and `label_list` have to have; None: not checked.
        **options: `loss`, `verbose`, `tune`, `head`, `head_factor`, `batch_norm`, `label_list`, `cbs`, and what
            `strategy.bind` takes (see `BaseTask`).

    Raises:
        ValueError, TypeError: see `BaseTask`; at the first batch, logits of another number of classes.

    Example:
        >>> import tempfile, paddle_ftstrat as hub
        >>> x = paddle.randn([64, 4])
        >>> pairs = paddle.io.TensorDataset([x, (x.sum(-1) > 0).astype("int64")])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     config = hub.RunConfig(
        ...         num_epoch=2, checkpoint_dir=folder, strategy=hub.DefaultFinetuneStrategy(0.1)
        ...     )
        ...     data = {"train": pairs, "dev": pairs, "test": pairs}
        ...     task = ClassifierTask(nn.Linear(4, 2), data, config, verbose=False)
        ...     sorted(task.finetune_and_eval())
        ['acc', 'loss']

    Source: PaddleHub 1.8 `finetune/task/classifier_task.py`.
    """

    default_metrics = ("acc",)

    def __init__(
        self,
        model: nn.Layer,
        dataset: Any,
        config: RunConfig | None = None,
        metrics_choices: Any = None,
        num_classes: int | None = None,
        **options: Any,
    ) -> None:
        self.num_classes = None if num_classes is None else _errors.check_whole("num_classes", num_classes, minimum=1)
        super().__init__(model, dataset, config, metrics_choices, **options)
        if self.num_classes and self.label_list and len(self.label_list) != self.num_classes:
            raise ValueError(f"num_classes = {self.num_classes}, but label_list has {len(self.label_list)} names")

    def _loss(self, output: Any, label: Any) -> Any:
        return evaluation.cross_entropy(output, label)

    def _check_output(self, output: Any, label: Any) -> None:
        classes = output.shape[-1] if output.ndim > 1 else 0
        wanted = self.num_classes or len(self.label_list or ())
        if wanted and classes != wanted:
            source = f"num_classes = {wanted}" if self.num_classes else f"label_list has {wanted} names"
            raise ValueError(f"{source}, but the model returns an output of shape {list(output.shape)}")

    def _results(self, output: Any, names: list[str] | None) -> list[Any]:
        return named(evaluation.array(output).argmax(-1).tolist(), names)


class ImageClassifierTask(ClassifierTask):
    """Classification of images: a `ClassifierTask` under PaddleHub's name.

    Args:
        model: takes images, e.g. one of `paddle.vision.models`, and returns logits of shape [batch, classes].
        dataset, config, metrics_choices, num_classes, **options: see `ClassifierTask`.

    Example:
        >>> images = paddle.io.TensorDataset([paddle.randn([8, 1, 28, 28]), paddle.randint(0, 10, [8])])
        >>> task = ImageClassifierTask(paddle.vision.models.LeNet(), {"train": images}, verbose=False)
        >>> tuple(task.predict(images).shape)
        (8, 10)

    Source: PaddleHub 1.8 `finetune/task/classifier_task.py`.
    """


class TextClassifierTask(ClassifierTask):
    """Classification of texts: a `ClassifierTask` under PaddleHub's name.

    Samples are (token ids, …, label) or dicts of a tokenizer's output with `labels`, which become keyword arguments.

    Args:
        model: takes token ids, e.g. a `…ForSequenceClassification` of PaddleNLP, and returns logits [batch, classes].
        dataset, config, metrics_choices, num_classes, **options: see `ClassifierTask`.

    Example:
        >>> model = nn.Sequential(nn.Embedding(50, 8), nn.Flatten(), nn.Linear(48, 2))
        >>> reviews = paddle.io.TensorDataset([paddle.randint(0, 50, [8, 6]), paddle.randint(0, 2, [8])])
        >>> task = TextClassifierTask(model, {"train": reviews}, verbose=False, label_list=["bad", "good"])
        >>> set(task.predict(reviews, return_result=True)) <= {"bad", "good"}
        True

    Source: PaddleHub 1.8 `finetune/task/classifier_task.py`.
    """


class MultiLabelClassifierTask(ClassifierTask):
    """Any number of labels per sample: sigmoid cross entropy over logits [batch, labels], labels of 0 and 1 likewise.

    `predict(…, return_result=True)` gives the list of each sample's labels, those with a probability over ½.

    Args:
        model: returns logits of shape [batch, labels].
        dataset, config: see `BaseTask`; a sample's label is a vector of 0 and 1.
        metrics_choices: `auc` (the default: area under the ROC curve, mean over the labels), `acc` (share of samples
            with all labels right), `f1`, `precision`, `recall` (means over the labels), functions or Metrics.
        num_classes: number of labels that the model has to have; None: not checked.
        **options: see `ClassifierTask`.

    Raises:
        ValueError, TypeError: see `BaseTask`; at the first batch, logits or labels of another shape.

    Example:
        >>> import tempfile, paddle_ftstrat as hub
        >>> x = paddle.randn([32, 4])
        >>> signs = paddle.io.TensorDataset([x, (x[:, :3] > 0).astype("float32")])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     strategy = hub.DefaultStrategy(0.1)
        ...     config = hub.RunConfig(num_epoch=5, batch_size=4, checkpoint_dir=folder, strategy=strategy)
        ...     data = {"train": signs, "dev": signs}
        ...     task = MultiLabelClassifierTask(nn.Linear(4, 3), data, config, metrics_choices=["f1"], verbose=False)
        ...     scores = task.finetune_and_eval()
        >>> sorted(scores), scores["f1"] > 0.9
        (['f1', 'loss'], True)

    Source: PaddleHub 1.8 `finetune/task/classifier_task.py`, which has two logits and a softmax per label.
    """

    default_metrics = ("auc",)
    kind = "labels"

    def _loss(self, output: Any, label: Any) -> Any:
        logits = evaluation.main_output(output)
        return nn.functional.binary_cross_entropy_with_logits(logits, label.astype(logits.dtype))

    def _check_output(self, output: Any, label: Any) -> None:
        super()._check_output(output, label)
        if list(output.shape) != list(label.shape):
            raise evaluation.misfit("logits", output, label, "both have to be [batch, labels], labels of 0 and 1")

    def _results(self, output: Any, names: list[str] | None) -> list[Any]:
        rows = (paddle.nonzero(row > 0).reshape([-1]).tolist() for row in output)
        return [named(row, names) for row in rows]


class RegressionTask(BaseTask):
    """Regression: mean squared error between outputs and labels with the same number of entries.

    Outputs [batch, 1] go with labels [batch], and the other way round. `predict(…, return_result=True)` gives a number
    per sample, or a list of them where the model has several outputs.

    Args:
        model: returns [batch, 1], [batch] or [batch, outputs].
        metrics_choices: `spearman` (the default) or `pearson` correlation, `mse`, `mae`, `r2`, functions or Metrics;
            the first chooses the best model, of `mse` and `mae` the lowest.
        dataset, config, loss, verbose, label_list, cbs, **options: see `BaseTask`.

    Raises:
        ValueError, TypeError: see `BaseTask`; at the first batch, outputs and labels that do not go together.

    Example:
        >>> import tempfile, paddle, paddle_ftstrat as hub
        >>> x = paddle.randn([32, 4])
        >>> pairs = paddle.io.TensorDataset([x, x.sum(-1)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     strategy = hub.DefaultStrategy(0.1)
        ...     config = hub.RunConfig(num_epoch=20, batch_size=4, checkpoint_dir=folder, strategy=strategy)
        ...     task = RegressionTask(nn.Linear(4, 1), {"train": pairs, "dev": pairs}, config, verbose=False)
        ...     scores = task.finetune_and_eval()
        >>> scores["spearman"] > 0.99, len(task.predict(pairs, return_result=True))
        (True, 32)

    Source: PaddleHub 1.8 `finetune/task/regression_task.py`.
    """

    default_metrics = ("spearman",)
    kind = "values"

    def _loss(self, output: Any, label: Any) -> Any:
        return evaluation.elementwise(nn.functional.mse_loss, output, label)

    def _results(self, output: Any, names: list[str] | None) -> list[Any]:
        values = evaluation.array(output)
        return values.reshape(-1).tolist() if values.size == len(values) else values.tolist()


def named(numbers: list[int], names: list[str] | None) -> list[Any]:
    """Class numbers as names, where there are names.

    Raises:
        ValueError: a number beyond the names.

    Example:
        >>> named([1, 0], ["no", "yes"]), named([1, 0], None)
        (['yes', 'no'], [1, 0])
    """
    if names is None:
        return numbers
    beyond = [number for number in numbers if number >= len(names)]
    if beyond:
        raise ValueError(f"the model found class {beyond[0]}, but label_list has only {len(names)} names")
    return [names[number] for number in numbers]


class SequenceLabelTask(ClassifierTask):
    """Sequence labelling: cross entropy over logits [batch, length, classes], labels int64 [batch, length].

    Padding is told by its label, `ignore_index`: it counts neither in the loss nor in a metric. Batches may differ in
    length. `predict(…, return_result=True)` gives a list per sample, with the name or number of each token's class,
    those of padding included, since predictions have no labels to tell it.

    Args:
        model: returns logits of shape [batch, length, classes].
        dataset, config: see `BaseTask`; a sample's label has an entry per token.
        metrics_choices: `f1`, `precision`, `recall` of chunks, which need `label_list` to hold tags (`O`, `B-PER`,
            `I-PER`, …) and the package seqeval; `token_f1`, `token_precision`, `token_recall` (means over the classes)
            and `acc` of tokens; functions or Metrics. Default: `f1`, `precision`, `recall` where there is a
            `label_list`, else `token_f1`.
        num_classes: number of classes that the model and `label_list` have to have; None: not checked.
        ignore_index: the label of tokens that do not count.
        **options: see `ClassifierTask`.

    Raises:
        ValueError, TypeError: see `BaseTask`; at the first batch, logits and labels of shapes that do not go together.

    Example:
        >>> import tempfile, paddle, paddle_ftstrat as hub
        >>> words = paddle.randint(0, 9, [32, 6])
        >>> labels = (words % 3).astype("int64")
        >>> sentences = paddle.io.TensorDataset([words, labels])
        >>> model = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 3))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     strategy = hub.DefaultStrategy(0.1)
        ...     config = hub.RunConfig(num_epoch=5, batch_size=4, checkpoint_dir=folder, strategy=strategy)
        ...     data, names = {"train": sentences, "dev": sentences}, ["O", "B-X", "I-X"]
        ...     task = SequenceLabelTask(model, data, config, ["token_f1"], label_list=names, verbose=False)
        ...     scores = task.finetune_and_eval()
        >>> scores["token_f1"], task.predict(sentences, return_result=True)[0] == [names[i] for i in labels[0].tolist()]
        (1.0, True)

    Source: PaddleHub 1.8 `finetune/task/sequence_task.py`; chunks are counted as in CoNLL-2000's conlleval.
    """

    kind = "tokens"

    def __init__(
        self,
        model: nn.Layer,
        dataset: Any,
        config: Any = None,
        metrics_choices: Any = None,
        num_classes: int | None = None,
        ignore_index: int = evaluation.IGNORED,
        **options: Any,
    ) -> None:
        if isinstance(ignore_index, bool) or not hasattr(ignore_index, "__index__"):
            raise TypeError(f"ignore_index must be a whole number, not {ignore_index!r}")
        self.ignore_index = int(ignore_index)
        super().__init__(model, dataset, config, metrics_choices, num_classes, **options)

    def _find_metrics(self, choices: Any) -> dict[str, Metric]:
        if choices is None:
            choices = ["f1", "precision", "recall"] if self.label_list else ["token_f1"]
        return evaluation.find(choices, self.kind, self.label_list, self.ignore_index)

    def _loss(self, output: Any, label: Any) -> Any:
        logits = evaluation.main_output(output)
        tokens, labels = logits.reshape([-1, logits.shape[-1]]), label.reshape([-1])
        # Paddle's own mean divides by the ignored tokens, too, where ignore_index is negative.
        total = nn.functional.cross_entropy(tokens, labels, ignore_index=self.ignore_index, reduction="sum")
        counted = (labels != self.ignore_index).astype(total.dtype).sum()
        return total / counted.clip(min=1.0)

    def _check_output(self, output: Any, label: Any) -> None:
        super()._check_output(output, label)
        if output.ndim != 3 or label.size != output.shape[0] * output.shape[1]:
            needed = "sequence labelling needs [batch, length, classes] and [batch, length]"
            raise evaluation.misfit("logits", output, label, needed)

    def _results(self, output: Any, names: list[str] | None) -> list[Any]:
        return [named(row, names) for row in evaluation.array(output).argmax(-1).tolist()]
