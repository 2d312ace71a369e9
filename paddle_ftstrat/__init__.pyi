"""What `paddle_ftstrat` gives, and where it lives: each name is imported when it is first asked for."""

from . import (
    finetune as finetune,
)
from . import (
    optim as optim,
)
from . import (
    param_attr as param_attr,
)
from . import (
    schedules as schedules,
)
from . import (
    transfer as transfer,
)
from ._paddle.threads import (
    cpu_threads as cpu_threads,
)
from .binding import (
    Binding as Binding,
)
from .integrations.optuna import (
    OptunaPruning as OptunaPruning,
)
from .integrations.visualdl import (
    VisualDLCallback as VisualDLCallback,
)
from .plan import (
    Phase as Phase,
)
from .plan import (
    Plateau as Plateau,
)
from .schedules import (
    ParamScheduler as ParamScheduler,
)
from .schedules import (
    SchedCos as SchedCos,
)
from .schedules import (
    SchedExp as SchedExp,
)
from .schedules import (
    SchedLin as SchedLin,
)
from .schedules import (
    SchedNo as SchedNo,
)
from .schedules import (
    SchedPoly as SchedPoly,
)
from .schedules import (
    annealer as annealer,
)
from .schedules import (
    combine_scheds as combine_scheds,
)
from .schedules import (
    combined_cos as combined_cos,
)
from .schedules import (
    sched_cos as sched_cos,
)
from .schedules import (
    sched_exp as sched_exp,
)
from .schedules import (
    sched_lin as sched_lin,
)
from .schedules import (
    sched_no as sched_no,
)
from .strategies import (
    AdamWeightDecayStrategy as AdamWeightDecayStrategy,
)
from .strategies import (
    CombinedStrategy as CombinedStrategy,
)
from .strategies import (
    DefaultFinetuneStrategy as DefaultFinetuneStrategy,
)
from .strategies import (
    DefaultStrategy as DefaultStrategy,
)
from .strategies import (
    FineTuneStrategy as FineTuneStrategy,
)
from .strategies import (
    FlatCosStrategy as FlatCosStrategy,
)
from .strategies import (
    L2SPFinetuneStrategy as L2SPFinetuneStrategy,
)
from .strategies import (
    LPFTStrategy as LPFTStrategy,
)
from .strategies import (
    OneCycleStrategy as OneCycleStrategy,
)
from .strategies import (
    PhasedStrategy as PhasedStrategy,
)
from .strategies import (
    SGDRStrategy as SGDRStrategy,
)
from .strategies import (
    ULMFiTStrategy as ULMFiTStrategy,
)
from .strategies import (
    strategy_from_dict as strategy_from_dict,
)
from .strategies import (
    strategy_from_yaml as strategy_from_yaml,
)
from .strategies.search import (
    Range as Range,
)
from .strategies.search import (
    SearchSpace as SearchSpace,
)
from .tasks import (
    ClassifierTask as ClassifierTask,
)
from .tasks import (
    ImageClassifierTask as ImageClassifierTask,
)
from .tasks import (
    MultiLabelClassifierTask as MultiLabelClassifierTask,
)
from .tasks import (
    RegressionTask as RegressionTask,
)
from .tasks import (
    SequenceLabelTask as SequenceLabelTask,
)
from .tasks import (
    TextClassifierTask as TextClassifierTask,
)
from .tasks.config import (
    RunConfig as RunConfig,
)
from .tools.compare import (
    Comparison as Comparison,
)
from .tools.compare import (
    compare as compare,
)
from .training.averaging import (
    EMA as EMA,
)
from .training.callbacks import (
    Callback as Callback,
)
from .training.callbacks import (
    EarlyStoppingCallback as EarlyStoppingCallback,
)
from .training.callbacks import (
    SaveModelCallback as SaveModelCallback,
)
from .training.callbacks import (
    StopTraining as StopTraining,
)
from .training.checkpoint.manager import (
    Checkpoints as Checkpoints,
)
from .training.learner import (
    Learner as Learner,
)
from .training.lr_find import (
    LRFinder as LRFinder,
)
from .training.lr_find import (
    minimum as minimum,
)
from .training.lr_find import (
    slide as slide,
)
from .training.lr_find import (
    steep as steep,
)
from .training.lr_find import (
    valley as valley,
)
from .training.passes import (
    RDrop as RDrop,
)
from .training.precision import (
    mixed_precision as mixed_precision,
)
from .training.sweeps import (
    AutoRGN as AutoRGN,
)
from .training.sweeps import (
    auto_rgn as auto_rgn,
)
from .training.sweeps import (
    fisher as fisher,
)
from .transfer import (
    LoadReport as LoadReport,
)
from .transfer import (
    export_inference as export_inference,
)
from .transfer import (
    interpolate as interpolate,
)
from .transfer import (
    load_pretrained as load_pretrained,
)
from .transfer import (
    reinitialize as reinitialize,
)
from .transfer import (
    save_pretrained as save_pretrained,
)
from .transfer import (
    soup as soup,
)
from .transfer import (
    tune as tune,
)
from .transfer import (
    update_statistics as update_statistics,
)

__version__: str
