"""skorch, as in its quick start: `NeuralNetClassifier.fit` of arrays, with its table of epochs;
without its split into training and valid rows, since nobody else here has valid rows.

As an expert runs it: `callbacks="disable"`, fused Adam, an `iterator_train` that indexes a batch at
once, `partial_fit` of an initialized net; compiled by `compile=True`.
"""

from __future__ import annotations

from copy import deepcopy
from functools import partial

import torch
from skorch import NeuralNetClassifier
from torch import nn

from benchmarks import train
from benchmarks.peers import workloads
from benchmarks.peers.workloads import Done, Fresh, Run


def mlp() -> Fresh:
    """Train the MLP as in the quick start."""
    inputs, labels = (column.numpy() for column in workloads.digits())

    def fresh() -> Run:
        net = NeuralNetClassifier(
            train.mlp,
            max_epochs=1,
            criterion=nn.CrossEntropyLoss,
            optimizer=torch.optim.Adam,
            lr=1e-3,
            batch_size=train.BATCH,
            iterator_train__shuffle=True,
            train_split=None,
        )

        def run() -> Done:
            net.fit(inputs, labels)
            return _done(net)

        return run

    return fresh


def expert_mlp(compiled: bool) -> Fresh:
    """Train the MLP as an expert does."""
    inputs, labels = workloads.digits()
    net = NeuralNetClassifier(
        train.mlp,
        max_epochs=1,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        optimizer__fused=True,
        lr=1e-3,
        batch_size=train.BATCH,
        iterator_train=workloads.batch_loader,
        train_split=None,
        callbacks="disable",
        compile=compiled,
        compile__dynamic=False,
    )
    net.initialize()
    start = deepcopy(net.module_.state_dict())

    def fresh() -> Run:
        # `fit` would initialize, and so compile, the module again.
        net.module_.load_state_dict(start)
        net.initialize_history()
        net.initialize_optimizer()

        def run() -> Done:
            net.partial_fit(inputs, labels)
            return _done(net)

        return run

    return fresh


def _done(net: NeuralNetClassifier) -> Done:
    return Done(len(net.history[-1]["batches"]), workloads.count(net.module_))


WORKLOADS = {"mlp": mlp}
EXPERT = {"mlp": partial(expert_mlp, compiled=False)}
COMPILED = {"mlp": partial(expert_mlp, compiled=True)}
