"""PaddleHub 1.x's tasks: model, data and RunConfig in, the best model and its scores out."""

from paddle_ftstrat.tasks.base import BEST, BaseTask
from paddle_ftstrat.tasks.classifier import (
    ClassifierTask,
    ImageClassifierTask,
    MultiLabelClassifierTask,
    RegressionTask,
    SequenceLabelTask,
    TextClassifierTask,
)
from paddle_ftstrat.tasks.config import PHASES

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
