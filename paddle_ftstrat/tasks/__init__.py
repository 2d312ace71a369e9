"""PaddleHub 1.x's tasks: model, data and RunConfig in, the best model and its scores out."""

from paddle_ftstrat.tasks.base import BEST, PHASES, BaseTask
from paddle_ftstrat.tasks.classifier import (
    ClassifierTask,
    ImageClassifierTask,
    MultiLabelClassifierTask,
    TextClassifierTask,
)
from paddle_ftstrat.tasks.regression import RegressionTask
from paddle_ftstrat.tasks.sequence import SequenceLabelTask

__all__ = [
    "BEST",
    "PHASES",
    "BaseTask",
    "ClassifierTask",
    "ImageClassifierTask",
    "MultiLabelClassifierTask",
    "RegressionTask",
    "SequenceLabelTask",
    "TextClassifierTask",
]
