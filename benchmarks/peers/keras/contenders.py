"""Keras on torch, as in its first example: `compile` and `Model.fit` on arrays, with progress bar.

Expert setup: `verbose=0` and a `train_step` as in its guide to customizing `fit` with torch, with
torch's loss, fused Adam and no metrics; compiled, its own step and Adam with `jit_compile=True`.
"""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks import train
from benchmarks.peers import workloads
from benchmarks.peers.workloads import Fit, FitStats, PrepareFit


class ExpertModel(keras.Sequential):
    """A network trained with torch's loss and `adam`, a torch optimizer."""

    adam: torch.optim.Optimizer

    def train_step(self, data: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Take one step and return its loss."""
        inputs, labels = data
        loss = cross_entropy(self(inputs), labels)
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        return {"loss": loss.detach()}


def mlp() -> PrepareFit:
    """Train the MLP as in the first example."""
    inputs, labels = (column.numpy() for column in workloads.random_digits())

    def prepare_fit() -> Fit:
        net = keras.Sequential(_layers())
        _compile(net)

        def fit() -> FitStats:
            net.fit(inputs, labels, batch_size=train.BATCH_SIZE, epochs=1)
            return FitStats(int(net.optimizer.iterations), net.count_params())

        return fit

    return prepare_fit


def expert_mlp() -> PrepareFit:
    """Train the MLP as an expert would."""
    inputs, labels = workloads.random_digits()

    def prepare_fit() -> Fit:
        net = ExpertModel(_layers())
        net.compile()
        net.adam = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)

        def fit() -> FitStats:
            net.fit(inputs, labels, batch_size=train.BATCH_SIZE, epochs=1, verbose=0)
            steps = int(next(iter(net.adam.state.values()))["step"])
            return FitStats(steps, net.count_params())

        return fit

    return prepare_fit


def compiled_mlp() -> PrepareFit:
    """Train the MLP with Keras's own step, compiled."""
    inputs, labels = workloads.random_digits()
    net = keras.Sequential(_layers())
    _compile(net, jit_compile=True)
    net.optimizer.build(net.trainable_variables)
    variables = [*net.trainable_variables, *net.optimizer.variables]
    initial = [variable.numpy().copy() for variable in variables]

    def prepare_fit() -> Fit:
        # The model is reused: a new one would be compiled again.
        for variable, value in zip(variables, initial, strict=True):
            variable.assign(value)

        def fit() -> FitStats:
            net.fit(inputs, labels, batch_size=train.BATCH_SIZE, epochs=1, verbose=0)
            return FitStats(int(net.optimizer.iterations), net.count_params())

        return fit

    return prepare_fit


def _layers() -> list[keras.layers.Layer]:
    hidden = [keras.layers.Dense(100, activation="relu") for _ in range(3)]
    return [keras.layers.Input((784,)), *hidden, keras.layers.Dense(10)]


def _compile(net: keras.Model, jit_compile: bool | str = "auto") -> None:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(optimizer=keras.optimizers.Adam(1e-3), loss=loss, jit_compile=jit_compile)


TUTORIAL = {"mlp": mlp}
EXPERT = {"mlp": expert_mlp}
COMPILED = {"mlp": compiled_mlp}
