"""The task that predicts a number."""

from __future__ import annotations

from typing import Any

from paddle import nn

from paddle_ftstrat.tasks.base import BaseTask
from paddle_ftstrat.training import evaluation, losses


class RegressionTask(BaseTask):
    """Regression: mean squared error between outputs and labels with the same number of entries.

    Outputs [batch, 1] go with labels [batch], and the other way round. `predict(…, return_result=True)` gives a number
    per sample, or a list of them where the model has several outputs.

    Args:
        model: returns [batch, 1], [batch] or [batch, outputs].
        dataset: dict with `train`, `dev`, `test` (see `BaseTask`).
        config: the RunConfig.
        metrics_choices: `spearman` (the default) or `pearson` correlation, `mse`, `mae`, `r2`, functions or Metrics;
            the first chooses the best model, of `mse` and `mae` the lowest.
        loss, verbose, label_list, cbs, **options: see `BaseTask`.

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
        return losses.elementwise(nn.functional.mse_loss, output, label)

    def _results(self, output: Any, names: list[str] | None) -> list[Any]:
        values = evaluation.array(output)
        return values.reshape(-1).tolist() if values.size == len(values) else values.tolist()
