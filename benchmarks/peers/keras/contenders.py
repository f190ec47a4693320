"""Keras on torch, as in its first example: `compile` and `Model.fit` of arrays, with its bar."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "torch"

import keras

from benchmarks import train
from benchmarks.peers import workloads
from benchmarks.peers.workloads import Done, Fresh, Run


def mlp() -> Fresh:
    """Train the MLP."""
    inputs, labels = (each.numpy() for each in workloads.digits())

    def laid() -> Run:
        hidden = [keras.layers.Dense(100, activation="relu") for _ in range(3)]
        net = keras.Sequential([keras.layers.Input((784,)), *hidden, keras.layers.Dense(10)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        net.compile(optimizer=keras.optimizers.Adam(1e-3), loss=loss)

        def run() -> Done:
            net.fit(inputs, labels, batch_size=train.BATCH, epochs=1)
            return Done(int(net.optimizer.iterations), net.count_params())

        return run

    return laid


WORKLOADS = {"mlp": mlp}
