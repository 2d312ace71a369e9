"""ULMFiT: by blocks, and by the layers that the module names."""
import paddlehub as hub
from paddlehub.finetune.strategy import ULMFiTStrategy
from paddlehub.finetune.config import RunConfig

module = hub.Module(name="ernie_v2_eng_base")
params_layer = module.get_params_layer()

by_blocks = ULMFiTStrategy(learning_rate=1e-3, cut_fraction=0.2, ratio=20, dis_blocks=4, factor=3, frz_blocks=2)
by_layers = hub.finetune.strategy.ULMFiTStrategy(
    frz_params_layer=params_layer,
    dis_params_layer=params_layer,
    optimizer_name='sgd',
)
nothing_but_the_triangle = ULMFiTStrategy(dis_blocks=0, frz_blocks=0)

config = RunConfig(num_epoch=5, strategy=by_blocks, checkpoint_dir='ckpt_ulmfit', use_cuda=False)
inputs, outputs, program = module.context(trainable=True)
task = hub.TextClassifierTask(
    num_classes=2,
    dataset=hub.dataset.ChnSentiCorp(),
    token_feature=outputs["sequence_output"],
    network="bilstm",
    hidden_units=[128],
    config=config,
)
task.finetune_and_eval()
