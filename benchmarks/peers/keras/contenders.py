"""Keras on torch, as in its first example: `compile` and `Model.fit` of arrays, with its bar.

As an expert runs it: `verbose=0` and a `train_step` as in its guide to customizing `fit` with
torch, here with torch's loss, fused Adam and no metrics; compiled, its own step and Adam by
`jit_compile=True`.
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
from benchmarks.peers.workloads import Done, Fresh, Run


class ExpertModel(keras.Sequential):
    """A network trained by torch's loss and by `adam`, an optimizer of torch's."""

    adam: torch.optim.Optimizer

    def train_step(self, data: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Take a step and return its loss."""
        inputs, labels = data
        loss = cross_entropy(self(inputs), labels)
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        return {"loss": loss.detach()}


def mlp() -> Fresh:
    """Train the MLP as in the first example."""
    inputs, labels = (column.numpy() for column in workloads.digits())

    def fresh() -> Run:
        net = keras.Sequential(_layers())
        _compile(net)

        def run() -> Done:
            net.fit(inputs, labels, batch_size=train.BATCH, epochs=1)
            return Done(int(net.optimizer.iterations), net.count_params())

        return run

    return fresh


def expert_mlp() -> Fresh:
    """Train the MLP as an expert does."""
    inputs, labels = workloads.digits()

    def fresh() -> Run:
        net = ExpertModel(_layers())
        net.compile()
        net.adam = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)

        def run() -> Done:
            net.fit(inputs, labels, batch_size=train.BATCH, epochs=1, verbose=0)
            steps = int(next(iter(net.adam.state.values()))["step"])
            return Done(steps, net.count_params())

        return run

    return fresh


def compiled_mlp() -> Fresh:
    """Train the MLP by Keras's own step, compiled."""
    inputs, labels = workloads.digits()
    net = keras.Sequential(_layers())
    _compile(net, jit_compile=True)
    net.optimizer.build(net.trainable_variables)
    variables = [*net.trainable_variables, *net.optimizer.variables]
    start = [variable.numpy().copy() for variable in variables]

    def fresh() -> Run:
        # A new model would be compiled again.
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)

        def run() -> Done:
            net.fit(inputs, labels, batch_size=train.BATCH, epochs=1, verbose=0)
            return Done(int(net.optimizer.iterations), net.count_params())

        return run

    return fresh


def _layers() -> list[keras.layers.Layer]:
    hidden = [keras.layers.Dense(100, activation="relu") for _ in range(3)]
    return [keras.layers.Input((784,)), *hidden, keras.layers.Dense(10)]


def _compile(net: keras.Model, jit_compile: bool | str = "auto") -> None:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(optimizer=keras.optimizers.Adam(1e-3), loss=loss, jit_compile=jit_compile)


WORKLOADS = {"mlp": mlp}
EXPERT = {"mlp": expert_mlp}
COMPILED = {"mlp": compiled_mlp}
