import paddle
import paddle.fluid as fluid

model = paddle.nn.Linear(4, 2)
lr = fluid.layers.cosine_decay(0.1, 10, 5)
optimizer = fluid.optimizer.Adam(
    learning_rate=1e-3,
    parameter_list=model.parameters(),
    regularization=fluid.regularizer.L2Decay(1e-4),
)
place = fluid.CPUPlace()
