"""The curves of all stages in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paddle_ftstrat.pictures import finished, pyplot
from ulmfit.classify import ClassifierStage


def draw_curves(
    language: Mapping[str, Sequence[Mapping[str, float]]],
    classifiers: Mapping[str, Mapping[int, ClassifierStage]],
    path: Path,
) -> None:
    """Losses of the language model and of the classifiers, and accuracy over the number of labels.

    Args:
        language: name of a stage → results of its epochs.
        classifiers: name of a way → number of labels → the classifier.
        path: image file to write.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure, (left, middle, right) = pyplot().subplots(1, 3, figsize=(15, 4.2), constrained_layout=True)
    begin = 0
    for name, history in language.items():
        epochs = begin + 1 + np.arange(len(history))
        left.plot(epochs, [row["valid_loss"] for row in history], "o-", label=name)
        begin += len(history)
    left.xaxis.get_major_locator().set_params(integer=True)
    left.set(title="language model", xlabel="epoch", ylabel="held-out loss, nats per character")
    for name, stages in classifiers.items():
        labels, stage = max(stages.items())
        middle.plot(_smooth(stage.losses), label=f"{name}, {labels} labels")
        counts = sorted(stages)
        right.plot(counts, [100 * stages[count].test for count in counts], "o-", label=name)
    middle.set(title="classifier", xlabel="update", ylabel="training loss, smoothed")
    right.set(title="what labels buy", xlabel="labelled texts", ylabel="test accuracy, %")
    if len(counts) > 1:
        right.set_xscale("log")
        right.set_xticks(counts, [str(count) for count in counts])
        right.minorticks_off()
    for axes in (left, middle, right):
        axes.legend(frameon=False)
    finished(figure, path)


def _smooth(values: Sequence[float], keep: float = 0.9) -> list[Any]:
    average, smoothed = 0.0, []
    for i, value in enumerate(values, 1):
        average = keep * average + (1 - keep) * value
        smoothed.append(average / (1 - keep**i))
    return smoothed
