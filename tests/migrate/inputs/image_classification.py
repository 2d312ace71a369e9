#coding:utf-8
"""Tell flowers apart with a pretrained ResNet."""
import argparse
import ast

import paddle.fluid as fluid
import paddlehub as hub

# yapf: disable
parser = argparse.ArgumentParser(__doc__)
parser.add_argument("--num_epoch",         type=int,              default=4,              help="Number of epochs.")
parser.add_argument("--use_gpu",           type=ast.literal_eval, default=False,          help="Whether to use a GPU.")
parser.add_argument("--checkpoint_dir",    type=str,              default="ckpt_flowers", help="Where to save.")
parser.add_argument("--batch_size",        type=int,              default=16,             help="Samples per batch.")
parser.add_argument("--use_data_parallel", type=ast.literal_eval, default=True,           help="Several devices.")
# yapf: enable


def finetune(args):
    # The pretrained network
    module = hub.Module(name="resnet_v2_50_imagenet")
    input_dict, output_dict, program = module.context(trainable=True)

    flowers = hub.dataset.Flowers()
    data_reader = hub.reader.ImageClassificationReader(
        image_width=module.get_expected_image_width(),
        image_height=module.get_expected_image_height(),
        dataset=flowers)
    feature_map = output_dict["feature_map"]
    feed_list = [input_dict["image"].name]

    # How to train
    config = hub.RunConfig(
        use_data_parallel=args.use_data_parallel,
        use_cuda=args.use_gpu,
        num_epoch=args.num_epoch,
        batch_size=args.batch_size,  # fits into 8 GB
        checkpoint_dir=args.checkpoint_dir,
        strategy=hub.finetune.strategy.DefaultFinetuneStrategy())

    task = hub.ImageClassifierTask(
        data_reader=data_reader,
        feed_list=feed_list,
        feature=feature_map,
        num_classes=flowers.num_labels,
        config=config)
    task.finetune_and_eval()


if __name__ == "__main__":
    finetune(parser.parse_args())
