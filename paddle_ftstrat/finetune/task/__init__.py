"""PaddleHub 1.x's tasks: model, data and RunConfig in, the best model and its scores out."""

from paddle_ftstrat.finetune.task.base_task import BEST, PHASES, BaseTask
from paddle_ftstrat.finetune.task.classifier_task import (
    ClassifierTask,
    ImageClassifierTask,
    MultiLabelClassifierTask,
    TextClassifierTask,
)
from paddle_ftstrat.finetune.task.regression_task import RegressionTask
from paddle_ftstrat.finetune.task.sequence_task import SequenceLabelTask

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
