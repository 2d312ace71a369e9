"""How similar two sentences are, pulled towards the pretrained weights."""
from paddlehub import L2SPFinetuneStrategy, Module, RegressionTask, RunConfig
from paddlehub.common.logger import logger
from paddlehub.dataset import GLUE
from paddlehub.reader import RegressionReader

module = Module(name="bert_uncased_L-12_H-768_A-12")
inputs, outputs, program = module.context(trainable=True)
pairs = GLUE("STS-B")
reader = RegressionReader(dataset=pairs, vocab_path=module.get_vocab_path(), max_seq_len=128)

strategy = L2SPFinetuneStrategy(4e-5, regularization_coeff=2e-3, optimizer_name="Adamax")
config = RunConfig(20, 300, False, False, None, False, "ckpt_sts", 2, 8, False, strategy)
logger.info("ready")
task = RegressionTask(
    feature=outputs["pooled_output"], feed_list=[inputs["input_ids"].name], data_reader=reader, config=config)
task.finetune()
