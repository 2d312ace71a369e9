"""The task that puts every token of a sequence into a class."""

from __future__ import annotations

from typing import Any

from paddle import nn

from paddle_ftstrat.tasks.classifier import ClassifierTask, named
from paddle_ftstrat.training import evaluation


class SequenceLabelTask(ClassifierTask):
    """Sequence labelling: cross entropy over logits [batch, length, classes], labels int64 [batch, length].

    Padding is told by its label, `ignore_index`: it counts neither in the loss nor in a metric. Batches may differ in
    length. `predict(…, return_result=True)` gives a list per sample, with the name or number of each token's class,
    those of padding included, since predictions have no labels to tell it.

    Args:
        model: returns logits of shape [batch, length, classes].
        dataset: dict with `train`, `dev`, `test` (see `BaseTask`); a sample's label has an entry per token.
        config: the RunConfig.
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

    def _find_metrics(self, choices: Any) -> dict[str, Any]:
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
            raise ValueError(
                f"the model returns logits of shape {list(output.shape)}, but the labels have shape "
                f"{list(label.shape)}: "
                "sequence labelling needs [batch, length, classes] and [batch, length]"
            )

    def _results(self, output: Any, names: list[str] | None) -> list[Any]:
        return [named(row, names) for row in evaluation.array(output).argmax(-1).tolist()]
