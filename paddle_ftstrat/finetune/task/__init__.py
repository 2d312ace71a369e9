"""PaddleHub's module path of the tasks."""

from paddle_ftstrat.tasks import (
    BEST,
    PHASES,
    BaseTask,
    ClassifierTask,
    ImageClassifierTask,
    MultiLabelClassifierTask,
    RegressionTask,
    SequenceLabelTask,
    TextClassifierTask,
)

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
