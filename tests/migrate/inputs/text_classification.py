# -*- coding: utf-8 -*-
"""Sentiment of Chinese reviews with ERNIE."""
import ast

import paddlehub as hub

LEARNING_RATE = 5e-5
options = {"use_gpu": ast.literal_eval("False"), "epochs": 3}

if __name__ == "__main__":
    module = hub.Module(name="ernie")
    inputs, outputs, program = module.context(trainable=True, max_seq_len=128)
    dataset = hub.dataset.ChnSentiCorp()
    reader = hub.reader.ClassifyReader(dataset=dataset, vocab_path=module.get_vocab_path(), max_seq_len=128)
    pooled_output = outputs["pooled_output"]
    feed_list = [
        inputs["input_ids"].name,
        inputs["position_ids"].name,
        inputs["segment_ids"].name,
        inputs["input_mask"].name,
    ]

    # PaddleHub warms up over a tenth of the training unless told otherwise.
    strategy = hub.AdamWeightDecayStrategy(
        learning_rate=LEARNING_RATE,  # the peak
        weight_decay=0.01)  # not for biases
    config = hub.RunConfig(
        use_cuda=options["use_gpu"],
        num_epoch=options["epochs"],
        checkpoint_dir="ckpt_reviews",
        batch_size=24,
        use_pyreader=False,
        eval_interval=50,
        strategy=strategy,
        enable_memory_optim=True)

    cls_task = hub.TextClassifierTask(
        data_reader=reader,
        feature=pooled_output,
        feed_list=feed_list,
        num_classes=dataset.num_labels,
        config=config,
        metrics_choices=["acc"])
    cls_task.finetune_and_eval()

    data = [["Very quiet rooms"], ["Never again"]]
    print(cls_task.predict(data=data, return_result=True))
