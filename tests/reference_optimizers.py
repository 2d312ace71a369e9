"""The update rules of Paddle's optimizers in numpy float64, from its documentation, for the tests to compare with.

Each rule is a class with the optimizer's defaults: `update(p, g, lr)` returns the new value. What decays is the
caller's affair, but for Lamb, whose decay stands inside its trust ratio.
"""

import numpy as np


class SGD:
    def update(self, p, g, lr):
        return p - lr * g


class Momentum:
    mu, v = 0.9, 0.0

    def update(self, p, g, lr):
        self.v = self.mu * self.v + g
        return p - lr * self.v


class Adam:
    beta1, beta2, eps = 0.9, 0.999, 1e-8
    t, m, v = 0, 0.0, 0.0

    def moments(self, g):
        """Bias-corrected first and second moment."""
        self.t += 1
        self.m = self.beta1 * self.m + (1 - self.beta1) * g
        self.v = self.beta2 * self.v + (1 - self.beta2) * g**2
        return self.m / (1 - self.beta1**self.t), self.v / (1 - self.beta2**self.t)

    def update(self, p, g, lr):
        m, v = self.moments(g)
        return p - lr * m / (np.sqrt(v) + self.eps)


class AdamW(Adam):
    """Its decay p ← p·(1 − lr·wd) comes before the update."""

    def __init__(self, decay=0.01):
        self.decay = decay

    def update(self, p, g, lr):
        return super().update(p * (1 - lr * self.decay), g, lr)


class Lamb(Adam):
    """Its trust ratio is 1 for a parameter that it does not decay, as Paddle's documentation of always_adapt says."""

    eps = 1e-6

    def __init__(self, decay=0.01):
        self.decay = decay

    def update(self, p, g, lr):
        m, v = self.moments(g)
        step = m / (np.sqrt(v) + self.eps) + self.decay * p
        norm_p, norm_step = np.linalg.norm(p), np.linalg.norm(step)
        adapts = self.decay > 0 and norm_p > 0 and norm_step > 0
        return p - lr * (norm_p / norm_step if adapts else 1.0) * step


class RMSProp:
    rho, eps, v = 0.95, 1e-6, 0.0

    def update(self, p, g, lr):
        self.v = self.rho * self.v + (1 - self.rho) * g**2
        return p - lr * g / np.sqrt(self.v + self.eps)


class Adagrad:
    eps, v = 1e-6, 0.0

    def update(self, p, g, lr):
        self.v = self.v + g**2
        return p - lr * g / (np.sqrt(self.v) + self.eps)


class Adamax:
    beta1, beta2, eps = 0.9, 0.999, 1e-8
    t, m, u = 0, 0.0, 0.0

    def update(self, p, g, lr):
        self.t += 1
        self.m = self.beta1 * self.m + (1 - self.beta1) * g
        self.u = np.maximum(np.abs(g), self.beta2 * self.u + self.eps)
        return p - lr / (1 - self.beta1**self.t) * self.m / self.u


class Adadelta:
    rho, eps = 0.95, 1e-6
    v, d = 0.0, 0.0

    def update(self, p, g, lr):
        self.v = self.rho * self.v + (1 - self.rho) * g**2
        step = -np.sqrt((self.d + self.eps) / (self.v + self.eps)) * g
        self.d = self.rho * self.d + (1 - self.rho) * step**2
        return p + lr * step


RULES = {rule.__name__.lower(): rule for rule in (SGD, Momentum, Adam, AdamW, Lamb, RMSProp, Adagrad, Adamax, Adadelta)}
