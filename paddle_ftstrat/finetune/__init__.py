"""PaddleHub 1.x's module paths of strategies, configuration and tasks; here names are only handed on."""

import sys

from paddle_ftstrat import strategies as strategy
from paddle_ftstrat import tasks as task
from paddle_ftstrat.tasks import config
from paddle_ftstrat.training import lr_find

__all__ = ["config", "lr_find", "strategy", "task"]

# So that `import paddle_ftstrat.finetune.strategy` finds them, too.
sys.modules.update({f"{__name__}.{name}": globals()[name] for name in __all__})
