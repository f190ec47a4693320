"""Modules that are wrapped: for several processes they are refused; compiled they are the same."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from conftest import NUMBERS, bits, spec_of
from torch import nn

import mip
from mip.errors import MipError
from mip.train import eval_step
from mip.train.gradient import functional


def plain():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1), nn.Flatten(0)
    )


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    """A group of one process, without a network."""
    store = dist.FileStore(str(tmp_path_factory.mktemp("group") / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield dist.device_mesh.init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def sharded(net, mesh):
    from torch.distributed.fsdp import FullyShardedDataParallel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a group of one
        return FullyShardedDataParallel(net, device_id=torch.device("cpu"))


def fully_sharded(net, mesh):
    from torch.distributed.fsdp import fully_shard

    return fully_shard(net, mesh=mesh)


def tensor_parallel(net, mesh):
    from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

    return parallelize_module(net, mesh, {"0": ColwiseParallel()})


WRAPPED = {
    "DataParallel": lambda net, mesh: nn.DataParallel(net),
    "DistributedDataParallel": lambda net, mesh: nn.parallel.DistributedDataParallel(net),
    "FullyShardedDataParallel": sharded,
    "FSDPModule": fully_sharded,
    "DTensor": tensor_parallel,
}


@pytest.mark.parametrize("name", WRAPPED)
@pytest.mark.parametrize("within", [False, True])
def test_a_module_for_several_processes_is_refused_with_the_cure(name, within, group):
    net, opt = WRAPPED[name](plain(), group), mip.sgd(0.1)
    net = nn.Sequential(net) if within else net
    refusal = rf"^{name} is not supported, its gradients would not be synchronised: pass the "
    for use in (
        lambda: mip.init(net, opt),
        lambda: mip.train_step(net, F.mse_loss, opt),
        lambda: eval_step(net),
    ):
        with pytest.raises(MipError, match=refusal):
            use()


def test_a_class_of_a_users_own_may_have_such_a_name():
    class DDP(nn.Linear):
        pass

    mip.init(DDP(2, 1), mip.sgd(0.1))


def compiled_whole(net):
    return torch.compile(net, backend="aot_eager")


def compiled_in_place(net):
    net.compile(backend="aot_eager")
    return net


def compiled_in_part(net):
    net[3] = torch.compile(net[3], backend="aot_eager")
    return net


# torch's own, of any compiled layer behind another one.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("make", [compiled_whole, compiled_in_place, compiled_in_part])
@pytest.mark.parametrize("how", [{}, {"gradient_engine": functional}], ids=["eager", "functional"])
def test_a_compiled_module_takes_the_same_steps_under_the_same_names(make, how):
    net, opt = plain(), mip.adam(0.1)
    net[2] = nn.Dropout(0.0)  # whose masks a compiler draws otherwise
    batch, wrapped = (torch.randn(8, 2), torch.randn(8)), make(copy.deepcopy(net))
    state = mip.init(net, opt)
    assert bits(mip.init(wrapped, opt)) == bits(state)
    step = mip.train_step(net, F.mse_loss, opt, **how)
    other = mip.train_step(wrapped, F.mse_loss, opt, **how)
    ended, again = state, state
    for _ in range(3):
        ended, again = step(ended, batch)[0], other(again, batch)[0]
    torch.testing.assert_close(tensors_of(again), tensors_of(ended))
    logits = eval_step(wrapped)(ended, batch[0]), eval_step(net)(ended, batch[0])
    torch.testing.assert_close(*logits)


def tensors_of(state):
    return {**state.params, **state.buffers}


def test_what_a_compiled_module_learns_is_saved_as_the_models(table, tmp_path):
    plan = mip.adapt(spec_of(branches=NUMBERS), table)
    net, opt = torch.compile(mip.build(plan), backend="aot_eager"), mip.sgd(0.01)
    step = mip.train_step(net, plan.loss, opt)
    state, _ = step(mip.init(net, opt), plan.encode(table))
    mip.save(tmp_path / "model.safetensors", plan, state)
    expected = mip.predictor(plan, state)(table)["value"]
    assert mip.load(tmp_path / "model.safetensors")(table)["value"].equals(expected)
