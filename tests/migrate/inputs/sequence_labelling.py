"""Named entities, with noam decay and a label per token."""
import argparse
import paddle.fluid as fluid
import paddlehub as hub

parser = argparse.ArgumentParser(__doc__)
parser.add_argument("--learning_rate", type=float, default=3e-5)
parser.add_argument("--warmup", type=float, default=0.2)
args = parser.parse_args()

if __name__ == '__main__':
    module = hub.Module(name="ernie_tiny")
    inputs, outputs, program = module.context(trainable=True, max_seq_len=256)
    reader = hub.reader.SequenceLabelReader(
        dataset=hub.dataset.MSRA_NER(), vocab_path=module.get_vocab_path(), max_seq_len=256)
    num_labels = len(reader.get_labels())

    with fluid.program_guard(program):
        sequence_output = outputs["sequence_output"]
        strategy = hub.AdamWeightDecayStrategy(
            warmup_proportion=args.warmup, learning_rate=args.learning_rate, lr_scheduler="noam_decay")
        config = hub.RunConfig(
            log_interval=5,
            use_cuda=False,
            num_epoch=6,
            batch_size=16,
            checkpoint_dir="ckpt_ner",
            save_ckpt_interval=200,
            strategy=strategy,
        )
        task = hub.SequenceLabelTask(
            data_reader=reader,
            feature=sequence_output,
            feed_list=[inputs["input_ids"].name],
            max_seq_len=256,
            num_classes=num_labels,
            config=config,
            add_crf=True)
        run_states = task.finetune_and_eval()
