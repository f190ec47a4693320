"""Weights of plain nets: what fits is loaded, the rest reported; other tools read the file."""

from __future__ import annotations

import io
import pickle

import pytest
import safetensors.torch
import torch
from conftest import bits, set_up, spec_of
from torch import nn
from torch.nn.functional import mse_loss

import mip
from mip.errors import FileError, MipError
from mip.files import LoadReport, load_weights, read_weights, save_checkpoint, save_weights
from mip.nn.pretrained import NESTED
from mip.optim import chain, ema, sgd


def small(seed=0, out=1):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, out))


def test_weights_come_back_bit_for_bit(tmp_path):
    net, other = small(), small(1)
    save_weights(tmp_path / "a.safetensors", net)
    report = load_weights(other, tmp_path / "a.safetensors", strict=True)
    assert bits(other.state_dict()) == bits(net.state_dict())
    assert report.loaded == tuple(net.state_dict())
    assert report.is_complete


def test_other_tools_read_the_file(tmp_path):
    net, other = small(), small(1)
    save_weights(tmp_path / "a.safetensors", net)
    other.load_state_dict(safetensors.torch.load_file(tmp_path / "a.safetensors"))
    assert bits(other.state_dict()) == bits(net.state_dict())
    with safetensors.safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata()["format"] == "pt"


def test_a_state_is_saved_as_the_net_that_holds_it(tmp_path):
    net = small()
    net[0].weight.requires_grad_(False)
    save_weights(tmp_path / "net.safetensors", net)
    save_weights(tmp_path / "state.safetensors", mip.init(net, sgd(0.1)))
    assert (tmp_path / "net.safetensors").read_bytes() == (
        tmp_path / "state.safetensors"
    ).read_bytes()


def test_of_a_state_with_averages_these_are_saved(tmp_path):
    net = nn.Linear(3, 1)
    step = mip.train_step(net, mse_loss, chain(sgd(1.0), ema(0.5)))
    state, _ = mip.fit(step, [(torch.ones(4, 3), torch.ones(4))], step.init(), epochs=3)
    save_weights(tmp_path / "a.safetensors", state)
    held = read_weights(tmp_path / "a.safetensors")
    assert held["weight"].equal(mip.module(net, state).weight)
    assert not held["weight"].equal(state.params["weight"])


def test_a_file_is_not_replaced_unless_it_may_be(tmp_path):
    save_weights(tmp_path / "a.safetensors", small())
    with pytest.raises(FileError, match="exists already"):
        save_weights(tmp_path / "a.safetensors", small(1))
    save_weights(tmp_path / "a.safetensors", small(1), overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


# Shared tensors.


def tied(seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False))
    net[1].weight = net[0].weight
    return net


def test_a_shared_tensor_is_stored_once_and_is_not_missing(tmp_path):
    net, other = tied(), tied(1)
    save_weights(tmp_path / "a.safetensors", net)
    assert list(read_weights(tmp_path / "a.safetensors")) == ["0.weight"]
    assert load_weights(other, tmp_path / "a.safetensors", strict=True).loaded == ("0.weight",)
    assert bits(other.state_dict()) == bits(net.state_dict())
    assert safetensors.torch.load_model(tied(2), tmp_path / "a.safetensors") == (set(), [])


# Where weights come from.


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "module.module."])
def test_prefixes_of_wrappers_are_ignored(prefix):
    net, other = small(), small(1)
    wrapped = {f"{prefix}{name}": tensor for name, tensor in net.state_dict().items()}
    assert load_weights(other, wrapped, strict=True).is_complete
    assert bits(other.state_dict()) == bits(net.state_dict())


def test_a_layer_that_is_called_module_keeps_its_name():
    class Adapter(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.module = nn.Parameter(torch.zeros(1)), nn.Linear(1, 1)

    net, other = Adapter(), Adapter()
    assert load_weights(other, net.state_dict(), strict=True).is_complete
    assert bits(other.state_dict()) == bits(net.state_dict())


def test_a_compiled_net_takes_the_names_of_the_net_itself():
    net, other = small(), small(1)
    assert load_weights(torch.compile(other), net.state_dict(), strict=True).is_complete
    assert bits(other.state_dict()) == bits(net.state_dict())


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", [None, *NESTED])
def test_checkpoints_of_torch_are_read(tmp_path, name, zipped):
    net, other = small(), small(1)
    held = {name: net.state_dict(), "epoch": 3} if name else net.state_dict()
    torch.save(held, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    assert load_weights(other, tmp_path / "a.pt", strict=True).is_complete
    assert bits(other.state_dict()) == bits(net.state_dict())


def test_safetensors_of_others_are_read(tmp_path):
    net, other = small(), small(1)
    safetensors.torch.save_file(net.state_dict(), tmp_path / "a.safetensors")
    assert load_weights(other, tmp_path / "a.safetensors", strict=True).is_complete


def test_models_and_checkpoints_of_mip_are_read(table, tmp_path):
    start = set_up(spec_of(), table)
    state, history = mip.fit(start.step, start.batches, start.state, steps=1)
    mip.save(tmp_path / "model.safetensors", start.plan, state)
    save_checkpoint(tmp_path / "last.safetensors", state, history)
    for name in ("model", "last"):
        net = mip.build(start.plan, seed=5)
        load_weights(net, tmp_path / f"{name}.safetensors", strict=True)
        assert bits(net.state_dict()) == bits(start.net.state_dict())


def test_a_lazy_layer_takes_the_shape_of_the_file():
    net = nn.LazyLinear(4)
    assert load_weights(net, nn.Linear(3, 4).state_dict()).is_complete
    assert net.weight.shape == (4, 3)


# What does not fit.


def test_what_fits_is_loaded_and_the_rest_reported():
    net, other = small(), small(1, out=2)
    other.extra = nn.Linear(2, 1)
    stored = {**net.state_dict(), "old.weight": torch.zeros(1)}
    before = bits(other[2].state_dict())
    report = load_weights(other, stored)
    assert other[0].weight.equal(net[0].weight)
    assert bits(other[2].state_dict()) == before
    assert report == LoadReport(
        "state dict",
        tuple(name for name in net.state_dict() if name < "2"),
        ("extra.weight", "extra.bias"),
        ("old.weight",),
        {"2.weight": ((1, 4), (2, 4)), "2.bias": ((1,), (2,))},
    )
    assert repr(report).splitlines() == [
        "state dict: 7 tensors loaded",
        "  only in the net: extra.weight, extra.bias",
        "  only in the file: old.weight",
        "  other shape: 2.weight is [1, 4] in the file and [2, 4] in the net",
        "  other shape: 2.bias is [1] in the file and [2] in the net",
    ]


def test_strict_names_what_does_not_fit_and_changes_nothing():
    net, other = nn.ModuleDict({"encoder": small()}), nn.ModuleDict({"encodr": small(1)})
    before = bits(net.state_dict())
    with pytest.raises(FileError) as raised:
        load_weights(net, {**other.state_dict(), "encoder.0.bias": torch.ones(4)}, strict=True)
    assert str(raised.value) == (
        "state dict: the weights do not fit the net: the file has no encoder.0.weight (nearest: "
        "encodr.0.weight); the file has no encoder.1.weight (nearest: encodr.1.weight); the file "
        "has no encoder.1.bias (nearest: encodr.1.bias); and 14 more"
    )
    assert bits(net.state_dict()) == before


def test_where_nothing_fits_there_is_an_error():
    with pytest.raises(
        FileError, match=r"no tensor fits the net: 0\.weight is \[2, 5\] in the file"
    ):
        load_weights(nn.Sequential(nn.Linear(2, 1)), {"0.weight": torch.zeros(2, 5)})


class Harmful:
    def __reduce__(self):
        return print, ("executed",)


def test_a_pickle_of_more_than_tensors_is_refused(tmp_path, capsys):
    torch.save({"state_dict": nn.Linear(1, 1).state_dict(), "x": Harmful()}, tmp_path / "a.pt")
    torch.save(small(), tmp_path / "b.pt")
    held = {"a": "print", "b": r"torch\.nn\.modules\.\S+"}
    for name, kind in held.items():
        with pytest.raises(
            FileError, match=rf"{name}\.pt: is a pickle that holds {kind}.*safe form"
        ):
            read_weights(tmp_path / f"{name}.pt")
    assert not capsys.readouterr().out


def damaged(data):
    return [data[: len(data) // 2], data[:3], b"", b"PK", b"\x80\x02", b"hello" * 100]


def test_no_bytes_end_in_a_traceback(tmp_path):
    buffer = io.BytesIO()
    torch.save(small().state_dict(), buffer)
    files = damaged(buffer.getvalue()) + damaged(safetensors.torch.save(small().state_dict()))
    for data in [*files, pickle.dumps([1, 2]), pickle.dumps({"epoch": 3})]:
        (tmp_path / "a").write_bytes(data)
        with pytest.raises(FileError, match=r"a: "):
            read_weights(tmp_path / "a")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileError, match=r"nothing\.pt: cannot be read"):
        load_weights(small(), tmp_path / "nothing.pt")


def test_arguments_in_another_order_are_named(tmp_path):
    for call in (
        lambda: load_weights(tmp_path, small()),
        lambda: save_weights(small(), tmp_path / "a"),
        lambda: mip.save(tmp_path / "a", small(), mip.init(small(), sgd(0.1))),
        lambda: mip.save(mip.init(small(), sgd(0.1)), tmp_path / "a", small()),
    ):
        with pytest.raises(MipError, match=r"the order is|save_weights\(path, net\)"):
            call()
    with pytest.raises(MipError, match="run the net once"):
        save_weights(tmp_path / "a", nn.LazyLinear(1))
    assert not list(tmp_path.iterdir())


def test_a_file_of_weights_is_no_model_and_says_what_reads_it(tmp_path):
    save_weights(tmp_path / "a.safetensors", small())
    with pytest.raises(FileError, match=r"holds no model; mip\.load_weights\(net, path\)"):
        mip.load(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.bin", "w.ckpt"])
def test_weights_are_not_given_the_name_of_a_pickle(name, tmp_path):
    with pytest.raises(FileError, match=r"cannot read: name it w\.safetensors, or use torch\.save"):
        mip.save_weights(tmp_path / name, nn.Linear(1, 1))
    assert not [*tmp_path.iterdir()]


def test_weights_that_are_no_tensors_are_named():
    net = nn.Linear(1, 1)
    arrays = {name: tensor.detach().numpy() for name, tensor in net.named_parameters()}
    with pytest.raises(MipError, match=r"'weight' is no tensor, but ndarray: torch\.as_tensor"):
        mip.load_weights(net, arrays)
