"""paddle.fluid without PaddleHub: optimizers, attributes, clips, regularizers, initializers, schedules."""
import numpy as np
import paddle.fluid as fluid
from paddle.fluid import ParamAttr
from paddle.fluid.regularizer import L1Decay, L2DecayRegularizer as L2

vectors = np.random.random((100, 16)).astype("float32")
steps_per_epoch, epochs = 50, 4

embedding = fluid.ParamAttr(
    name="word_vectors",
    initializer=fluid.initializer.NumpyArrayInitializer(vectors),  # word vectors
    learning_rate=0.5,
    trainable=False)
weight = ParamAttr(
    initializer=fluid.initializer.TruncatedNormal(scale=0.02), regularizer=L1Decay(regularization_coeff=1e-4))
bias = ParamAttr(initializer=fluid.initializer.ConstantInitializer(0.))
kernel = ParamAttr(initializer=fluid.initializer.MSRAInitializer(uniform=False, fan_in=64), regularizer=L2(0.1))
square = ParamAttr(initializer=fluid.initializer.Xavier())

# schedules
stairs = fluid.layers.exponential_decay(0.1, decay_steps=10, decay_rate=0.5, staircase=True)
smooth = fluid.layers.exponential_decay(0.1, decay_steps=steps_per_epoch + 10, decay_rate=0.5)
natural = fluid.layers.natural_exp_decay(learning_rate=0.1, decay_steps=20, decay_rate=0.5)
natural_stairs = fluid.layers.natural_exp_decay(0.1, 20, 0.5, True)
inverse = fluid.layers.inverse_time_decay(0.1, 20, 0.5)
inverse_stairs = fluid.layers.inverse_time_decay(0.1, 20, 0.5, staircase=True)
polynomial = fluid.layers.polynomial_decay(0.1, 100, end_learning_rate=0.01, power=2.0)
noam = fluid.layers.noam_decay(64, 30)
cosine = fluid.layers.cosine_decay(
    learning_rate=0.1,  # the peak
    step_each_epoch=steps_per_epoch,
    epochs=epochs)
pieces = fluid.layers.piecewise_decay(boundaries=[30, 60], values=[0.1, 0.01, 0.001])
warm = fluid.layers.linear_lr_warmup(0.1, 25, 0.0, 0.1)
warm_pieces = fluid.layers.linear_lr_warmup(fluid.layers.piecewise_decay([30, 60], [0.1, 0.01, 0.001]), 25, 0.0, 0.1)

# optimizers
clip = fluid.clip.GradientClipByGlobalNorm(clip_norm=1.0)
momentum = fluid.optimizer.MomentumOptimizer(
    pieces,
    0.9,
    regularization=fluid.regularizer.L2Decay(5e-4),
    grad_clip=clip)
adam = fluid.optimizer.Adam(learning_rate=1e-3, parameter_list=model.parameters())
lars = fluid.optimizer.LarsMomentumOptimizer(0.1, momentum=0.9, parameter_list=model.parameters())
rms = fluid.optimizer.RMSProp(0.01, 0.9, parameter_list=model.parameters())


def train(loss):
    fluid.clip.set_gradient_clip(fluid.clip.GradientClipByValue(5.0))
    momentum.minimize(loss)
