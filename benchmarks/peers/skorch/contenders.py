"""skorch, as in its quick start: `NeuralNetClassifier.fit` on arrays, with its table of epochs but
without its validation split, since no other contender here has validation rows.

Expert setup: `callbacks="disable"`, fused Adam, an `iterator_train` that indexes a whole batch at
once, `partial_fit` of an initialized net; compiled with `compile=True`.
"""

from __future__ import annotations

from copy import deepcopy
from functools import partial

import torch
from skorch import NeuralNetClassifier
from torch import nn

from benchmarks import train
from benchmarks.peers import workloads
from benchmarks.peers.workloads import Fit, FitStats, PrepareFit


def mlp() -> PrepareFit:
    """Train the MLP as in the quick start."""
    inputs, labels = (column.numpy() for column in workloads.random_digits())

    def prepare_fit() -> Fit:
        net = NeuralNetClassifier(
            train.build_mlp,
            max_epochs=1,
            criterion=nn.CrossEntropyLoss,
            optimizer=torch.optim.Adam,
            lr=1e-3,
            batch_size=train.BATCH_SIZE,
            iterator_train__shuffle=True,
            train_split=None,
        )

        def fit() -> FitStats:
            net.fit(inputs, labels)
            return _fit_stats(net)

        return fit

    return prepare_fit


def expert_mlp(compiled: bool) -> PrepareFit:
    """Train the MLP as an expert would."""
    inputs, labels = workloads.random_digits()
    net = NeuralNetClassifier(
        train.build_mlp,
        max_epochs=1,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        optimizer__fused=True,
        lr=1e-3,
        batch_size=train.BATCH_SIZE,
        iterator_train=workloads.batch_loader,
        train_split=None,
        callbacks="disable",
        compile=compiled,
        compile__dynamic=False,
    )
    net.initialize()
    initial = deepcopy(net.module_.state_dict())

    def prepare_fit() -> Fit:
        # `fit` would initialize the module, and therefore compile it, again.
        net.module_.load_state_dict(initial)
        net.initialize_history()
        net.initialize_optimizer()

        def fit() -> FitStats:
            net.partial_fit(inputs, labels)
            return _fit_stats(net)

        return fit

    return prepare_fit


def _fit_stats(net: NeuralNetClassifier) -> FitStats:
    return FitStats(len(net.history[-1]["batches"]), workloads.count_parameters(net.module_))


TUTORIAL = {"mlp": mlp}
EXPERT = {"mlp": partial(expert_mlp, compiled=False)}
COMPILED = {"mlp": partial(expert_mlp, compiled=True)}
