"""Imported once by the process that `processes.py` forks others from: whatever takes a test's process long to get."""

import paddle_ftstrat as hub  # isort: skip - before Paddle
import sklearn.metrics  # noqa: F401
import tqdm.auto  # noqa: F401

from paddle_ftstrat.optim.fused import kernels

for _name in hub.__all__:
    getattr(hub, _name)
for _rule in ("sgd", "momentum", "adam"):
    kernels.make_ready(_rule)
