"""skorch, as in its quick start: `NeuralNetClassifier.fit` of arrays, with its table of epochs.

Its split into training and valid rows is off, since nobody else here has valid rows.
"""

from __future__ import annotations

import torch
from skorch import NeuralNetClassifier
from torch import nn

from benchmarks import train
from benchmarks.peers import workloads
from benchmarks.peers.workloads import Done, Fresh, Run


def mlp() -> Fresh:
    """Train the MLP."""
    inputs, labels = (each.numpy() for each in workloads.digits())

    def laid() -> Run:
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
            steps = len(net.history[-1]["batches"])
            return Done(steps, workloads.count(net.module_))

        return run

    return laid


WORKLOADS = {"mlp": mlp}
