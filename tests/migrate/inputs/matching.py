"""Which title answers a query: word vectors on the CPU with plain SGD."""
import paddlehub as hub

jieba = hub.Module(name="jieba_paddle")


def cut(text):
    return jieba.cut(text, use_paddle=False)


if __name__ == "__main__":
    module = hub.Module(name="word2vec_skipgram")
    inputs, outputs, program = module.context(trainable=True, max_seq_len=64, num_slots=2)
    tokenizer = hub.CustomTokenizer(
        vocab_file=module.get_vocab_path(),
        cut_function=cut,
    )
    dataset = hub.dataset.LCQMC(tokenizer=tokenizer, max_seq_len=64)
    query, title = outputs["emb"], outputs["emb_2"]

    strategy = hub.DefaultStrategy(optimizer_name="sgd", learning_rate=5e-2)
    same = hub.DefaultStrategy(5e-2, "sgd")
    heavy = hub.DefaultStrategy(learning_rate=1e-2, optimizer_name="Momentum", momentum=0.9, use_nesterov=True)

    config = hub.RunConfig(
        eval_interval=300, use_data_parallel=False, use_cuda=False, num_epoch=300,
        batch_size=128, checkpoint_dir="ckpt_matching", strategy=strategy)
    matching_task = hub.PointwiseTextMatchingTask(
        dataset=dataset, query_feature=query, title_feature=title, tokenizer=tokenizer, network="bow", config=config)
    matching_task.finetune_and_eval()
