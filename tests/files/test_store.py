"""Files: the same model comes back, and nothing else does, whatever happened to the bytes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
import subprocess
import sys
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
import torch
from attrs import evolve
from conftest import NUMBERS, bits, in_a_copy, set_up, spec_of
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of

import mip
from mip.errors import FileError, MipError, SpecError
from mip.files import load_model, save_checkpoint
from mip.files.format import _DTYPES, pack, unpack, write_packed
from mip.model import plan_to_dict
from mip.output import write
from mip.train import History


@pytest.fixture(scope="module")
def setup(table, head):
    setup = set_up(spec_of(head), table)
    return setup._replace(state=mip.fit(setup.step, setup.batches, setup.state, steps=4))


@pytest.fixture(scope="module")
def small(table, folder):
    """A model without photos, and its bytes."""
    setup = set_up(spec_of("regression", NUMBERS), table)
    mip.save(folder / "small.safetensors", setup.plan, setup.state, overwrite=True)
    return setup, (folder / "small.safetensors").read_bytes()


# Prediction is one function.


def test_a_model_predicts_the_same_bits_through_its_file(setup, table, tmp_path):
    mip.save(tmp_path / "model.safetensors", setup.plan, setup.state)
    memory = mip.predictor(setup.plan, setup.state)
    pd.testing.assert_frame_equal(
        mip.load(tmp_path / "model.safetensors")(table), memory(table), check_exact=True
    )


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_a_model_predicts_the_same_in_other_batches(setup, table, rows):
    predict = mip.predictor(setup.plan, setup.state)
    whole, parts = predict(table), evolve(predict, batch_size=rows)(table)
    numbers = whole.select_dtypes("number").columns
    pd.testing.assert_frame_equal(whole[numbers], parts[numbers], rtol=1e-5, atol=1e-7)
    if "label" in whole:
        assert whole["label"].tolist() == parts["label"].tolist()


def test_two_saves_have_equal_bytes(setup, tmp_path):
    for name in ("a", "b"):
        mip.save(tmp_path / name, setup.plan, setup.state)
    plan, state = load_model(tmp_path / "a")
    mip.save(tmp_path / "c", plan, state)
    contents = {(tmp_path / name).read_bytes() for name in "abc"}
    assert len(contents) == 1


def test_a_file_is_a_plain_safetensors_file(setup, tmp_path):
    mip.save(tmp_path / "model.safetensors", setup.plan, setup.state)
    tensors = tensors_of((tmp_path / "model.safetensors").read_bytes())
    expected = {"params": setup.state.params, "buffers": setup.state.buffers}
    assert bits(dict(sorted(tensors.items()))) == dict(sorted(bits(expected).items()))


def test_a_saved_model_does_not_need_the_table(setup, table, tmp_path):
    mip.save(tmp_path / "model.safetensors", setup.plan, setup.state)
    plan, _ = load_model(tmp_path / "model.safetensors")
    assert plan == setup.plan


def test_a_predictor_keeps_its_own_weights(small, table):
    setup, _ = small
    predict = mip.predictor(setup.plan, setup.state)
    before = predict(table)
    mip.fit(setup.step, setup.batches, setup.state, steps=2)
    for param in setup.net.parameters():
        param.detach().zero_()
    pd.testing.assert_frame_equal(predict(table), before, check_exact=True)


# Checkpoints.

STEPS = {"loss": torch.tensor([1.0, 2.0]), "step": torch.tensor([4, 5])}
odd = st.sampled_from([0.5, -1.0, float("inf"), float("-inf"), 0.0, 1e-300])


@given(
    loss=odd,
    step=st.integers(0, 2**40),
    seed=st.integers(0, 2**62),
    extra=st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=70)),
)
def test_a_checkpoint_comes_back(small, tmp_path_factory, loss, step, seed, extra):
    setup, _ = small
    path = tmp_path_factory.mktemp("c") / "c.safetensors"
    state = evolve(setup.state, step=step, seed=seed)
    history = History(({"epoch": 0, "step": 3, "loss": loss},), STEPS)
    save_checkpoint(path, state, history, setup.plan, extra)
    actual = mip.load_checkpoint(path, setup.state)
    assert bits(actual.state) == bits(state)
    assert actual.history.epochs == history.epochs
    assert bits(dict(actual.history.steps)) == bits(dict(history.steps))
    assert actual.extra == extra


def test_not_a_number_comes_back_in_a_history(small, tmp_path):
    setup, _ = small
    save_checkpoint(tmp_path / "c", setup.state, History(({"loss": float("nan")},)))
    assert (
        str(mip.load_checkpoint(tmp_path / "c", setup.state).history.epochs) == "({'loss': nan},)"
    )


def test_a_checkpoint_is_a_model_too(small, table, tmp_path):
    setup, _ = small
    save_checkpoint(tmp_path / "c", setup.state, History(), setup.plan)
    expected = mip.predictor(setup.plan, setup.state)(table)
    pd.testing.assert_frame_equal(mip.load(tmp_path / "c")(table), expected, check_exact=True)


def test_a_checkpoint_of_another_model_is_refused(small, setup, tmp_path):
    save_checkpoint(tmp_path / "c", setup.state, History())
    with pytest.raises(
        FileError,
        match=r"c: the checkpoint belongs to another model or optimizer: '\S+' is \[",
    ):
        mip.load_checkpoint(tmp_path / "c", small[0].state)


def test_a_checkpoint_of_another_optimizer_is_refused(small, tmp_path):
    setup, _ = small
    save_checkpoint(tmp_path / "c", setup.state, History())
    other = mip.init(setup.net, mip.sgd(momentum=0.9))
    with pytest.raises(FileError, match="belongs to another model or optimizer"):
        mip.load_checkpoint(tmp_path / "c", other)


def test_a_model_is_no_checkpoint(small, tmp_path):
    # Plain gradient descent has no tensors of its own, so the tensors alone would fit.
    setup, _ = small
    mip.save(tmp_path / "model", setup.plan, setup.state)
    with pytest.raises(FileError, match=r"model: the file holds a model and no checkpoint$"):
        mip.load_checkpoint(tmp_path / "model", mip.init(setup.net, mip.sgd()))


def test_a_checkpoint_without_a_plan_is_no_model(small, tmp_path):
    setup, _ = small
    save_checkpoint(tmp_path / "c", setup.state, History())
    with pytest.raises(FileError, match=r"c: the file holds no model; mip\.load_weights"):
        mip.load(tmp_path / "c")


def test_a_checkpoint_goes_to_the_device_of_the_start(small, tmp_path):
    setup, _ = small
    save_checkpoint(tmp_path / "c", setup.state, History())
    far = {name: param.to("meta") for name, param in setup.state.params.items()}
    actual = mip.load_checkpoint(tmp_path / "c", evolve(setup.state, params=far)).state
    assert {param.device.type for param in actual.params.values()} == {"meta"}


@pytest.mark.parametrize("changed", ["seed = 1", "batch_size = 7"])
def test_a_run_does_not_go_on_with_another_spec(changed, table, tmp_path):
    parts, train = mip.model.Parts(table, table.take([]), table.take([])), "[train]\nepochs = 1\n"
    mip.run(spec_of("regression", NUMBERS, train), parts, out=tmp_path)
    with pytest.raises(SpecError, match=rf"not the same run: train\.{changed.split()[0]} was"):
        mip.run(spec_of("regression", NUMBERS, train + changed), parts, out=tmp_path, resume=True)


def test_a_change_at_the_end_of_a_long_list_is_seen(table, tmp_path):
    parts, train = mip.model.Parts(table, table.take([]), table.take([])), "[train]\nepochs = 1\n"
    many = NUMBERS.replace('"area", ', '"area", ' * 20)
    mip.run(spec_of("regression", many, train), parts, out=tmp_path)
    other = many.replace('"rooms"]', '"area"]')
    with pytest.raises(SpecError, match=r"not the same run: branch\.sizes\.columns was"):
        mip.run(spec_of("regression", other, train), parts, out=tmp_path, resume=True)


def test_a_run_does_not_go_on_with_other_rows(table, tmp_path):
    train = "[train]\nepochs = 1\n"
    spec, none = spec_of("regression", NUMBERS, train), table.take([])
    mip.run(spec, mip.model.Parts(table, none, none), out=tmp_path)
    other = table.frame.copy()
    other.loc[3, "town"] = "Rom"
    parts = mip.model.Parts(mip.from_frame(other), none, none)
    with pytest.raises(
        SpecError, match="not the same run: the train rows are others, column 'town' differs; "
    ):
        mip.run(spec, parts, out=tmp_path, resume=True)


# Damage.


def test_every_truncation_is_refused():
    data = pack({"w": torch.arange(5.0), "b": torch.ones(1)}, {"note": "x"})
    unpack(data, "memory")
    for length in range(len(data)):
        with pytest.raises(FileError, match=r"^memory: the file is (damaged|truncated)"):
            unpack(data[:length], "memory")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cars.toml", "a spec, where a model file (.safetensors) is wanted; mip fit SPEC"),
        ("cars.csv", "a table, where a model file (.safetensors) is wanted"),
        ("cars.PARQUET", "a table, where a model file (.safetensors) is wanted"),
        ("car.jpg", "a photo, where a model file (.safetensors) is wanted"),
        ("car.pt", "a checkpoint of torch, where a model file (.safetensors) is wanted; "),
    ],
)
@pytest.mark.parametrize("data", [b"", b"a,b\n1,2\n", b"\2\0\0\0\0\0\0\0{}", b"\xff\xd8" * 50])
def test_a_file_of_another_kind_is_named(name, text, data, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(FileError) as caught:
        mip.load(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: {text}")


def test_a_model_may_have_any_name(tmp_path):
    write_packed(tmp_path / "cars.csv", {"w": torch.ones(2)}, {"note": "x"})
    assert mip.files.read_file(tmp_path / "cars.csv")[1]["note"] == "x"


def test_a_file_is_verified_without_a_copy_of_its_tensors():
    data = pack({"w": torch.zeros(4 << 20)}, {})
    tracemalloc.start()
    try:
        with pytest.raises(FileError, match="checksum"):
            unpack(data[:-1] + b"\1", "memory")
        broken = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        unpack(data, "memory")
        peak = tracemalloc.get_traced_memory()[1] - broken
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * len(data)  # the tensors themselves


def test_flipped_bits_are_refused(small):
    _, data = small
    rng = random.Random(0)
    for place in rng.sample(range(8 * len(data)), 400):
        broken = bytearray(data)
        broken[place // 8] ^= 1 << place % 8
        with pytest.raises(FileError, match=r"^memory: "):
            unpack(bytes(broken), "memory")


def test_every_flipped_bit_of_a_small_file_is_refused():
    data = pack({"w": torch.ones(2)}, {})
    for place in range(8 * len(data)):
        broken = bytearray(data)
        broken[place // 8] ^= 1 << place % 8
        with pytest.raises(FileError):
            unpack(bytes(broken), "memory")


@pytest.mark.parametrize("more", [b"\0", b"junk", b"{}"])
def test_bytes_added_at_the_end_are_refused(more):
    with pytest.raises(FileError, match="damaged"):
        unpack(pack({"w": torch.ones(2)}, {}) + more, "memory")


def headed(header: object) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


def signed(meta: dict, tensors: dict | None = None) -> bytes:
    """A file with a right checksum, as an attacker would make it."""
    return pack(tensors or {}, meta)


FOREIGN = {
    "nothing": b"",
    "a picture": b"\x89PNG\r\n\x1a\n" + b"\0" * 50,
    "a zip": b"PK\x03\x04" + b"\0" * 60,
    "a pickle": b"\x80\x04\x95" + b"c__builtin__\neval\n(S'1'\ntR." * 3,
    "another safetensors file": bytes_of({"w": torch.ones(2)}, {"format": "pt"}),
    "a header that is no table": headed([1, 2]),
    "a header of another kind": headed({"__metadata__": {"mip": "[1, 2]"}}),
    "a header that is a number": headed({"__metadata__": {"mip": "7"}}),
    "a header in a list": headed({"__metadata__": []}),
    "a header that claims too much": struct.pack("<Q", 2**63) + b"{}",
    "a deep header": headed(b"[" * 100_000),
    "a digest that is no text": headed({"__metadata__": {"mip": json.dumps({"sha256": 7})}}),
    "a digest of half a letter": headed(
        {"__metadata__": {"mip": json.dumps({"sha256": "\ud800" * 64})}}
    ),
    "another version": pack({"w": torch.ones(1)}, {"format": 99}),
    "an impossible version": pack({"w": torch.ones(1)}, {"format": 0}),
    "a version that is no number": pack({"w": torch.ones(1)}, {"format": ["1"]}),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_is_refused(name, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(FOREIGN[name])
    with pytest.raises(FileError, match=r"model\.safetensors: "):
        mip.load(path)


@pytest.mark.parametrize(
    "plan",
    [
        {},
        [],
        None,
        3,
        {"spec": {}},
        {"spec": {}, "facts": {}, "shapes": {}},
        {"spec": [], "facts": 1},
    ],
)
def test_a_crafted_plan_is_refused(plan, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(signed({"plan": plan, "step": 0}))
    with pytest.raises(FileError, match=r"model\.safetensors: "):
        mip.load(path)


@pytest.mark.parametrize("facts", [{}, {"branch": {}}, {"branch": {"place": 3}, "head": {}}])
def test_crafted_facts_are_refused(facts, small, tmp_path):
    setup, _ = small
    path = tmp_path / "model.safetensors"
    path.write_bytes(signed({"plan": {**plan_to_dict(setup.plan), "facts": facts}, "step": 0}))
    with pytest.raises(FileError, match=r"model\.safetensors: no model can be built from its plan"):
        mip.load(path)


def test_weights_that_do_not_fit_are_refused(small, tmp_path):
    setup, _ = small
    other = evolve(setup.state, params={"w": torch.ones(1)})
    mip.save(tmp_path / "model", setup.plan, other)
    with pytest.raises(FileError, match=r"^the weights do not fit the model of the spec: "):
        mip.load(tmp_path / "model")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileError, match=r"nowhere: cannot be read \(No such file or directory\)$"):
        mip.load(tmp_path / "nowhere")


@pytest.mark.parametrize("zeros", [63, 64, 65, 200])
def test_zeros_in_a_text_are_not_taken_for_the_digest(zeros):
    # The digest is taken with its own place zeroed, and 64 zeros may stand elsewhere.
    meta = {"a": "0" * zeros, "note": {"sha256": "0" * zeros}, "z": "0" * zeros}
    _, actual = unpack(pack({"0" * zeros: torch.ones(1)}, meta), "memory")
    assert {name: actual[name] for name in meta} == meta


def test_the_digest_covers_every_byte_but_itself():
    data = pack({"w": torch.ones(2)}, {"note": "x"})
    _, meta = unpack(data, "memory")
    zeroed = data.replace(meta["sha256"].encode(), b"0" * 64)
    assert hashlib.sha256(zeroed).hexdigest() == meta["sha256"]


shapes = st.lists(st.integers(0, 3), max_size=3)
dtypes = st.sampled_from(list(_DTYPES))


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.tuples(shapes, dtypes), max_size=4))
def test_any_tensors_come_back(described):
    tensors = {name: torch.ones(shape).to(dtype) for name, (shape, dtype) in described.items()}
    tensors.pop("__metadata__", None)
    actual, _ = unpack(pack(tensors, {}), "memory")
    same = {
        name: (actual[name].dtype, actual[name].shape, actual[name].tolist()) for name in tensors
    }
    assert same == {name: (of.dtype, of.shape, of.tolist()) for name, of in tensors.items()}


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.tuples(shapes, dtypes), max_size=6))
def test_the_bytes_are_those_of_safetensors(described):
    tensors = {name: torch.ones(shape).to(dtype) for name, (shape, dtype) in described.items()}
    tensors.pop("__metadata__", None)
    data = pack(tensors, {"note": '\u00e9"\n'})
    text = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])["__metadata__"]
    assert data == bytes_of(tensors, text)


def test_a_dtype_that_safetensors_lacks_is_named():
    message = r"^params/w: safetensors files hold no complex128$"
    with pytest.raises(FileError, match=message):
        pack({"params/w": torch.ones(1, dtype=torch.complex128)}, {})


def test_a_file_is_written_from_the_tensors_where_they_are(tmp_path):
    tensors = {"a": torch.ones(1 << 21), "b": torch.ones(1 << 21)}
    tracemalloc.start()
    write_packed(tmp_path / "c", tensors, {"note": "x"})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20
    assert (tmp_path / "c").read_bytes() == pack(tensors, {"note": "x"})


def test_views_and_strides_are_written_as_values():
    base = torch.arange(6.0).view(2, 3)
    actual, _ = unpack(pack({"turned": base.t(), "part": base[:, 1]}, {}), "memory")
    assert torch.equal(actual["turned"], base.t())
    assert actual["part"].tolist() == [1.0, 4.0]


# Writing: the old file or the new one.


class Fault:
    """Raise at the n-th call of a function of the operating system, for real elsewhere."""

    def __init__(self, real, at: int) -> None:
        self.real, self.left = real, at

    def __call__(self, *args, **kwargs):
        self.left -= 1
        if self.left == 0:
            raise OSError(28, "No space left on device")
        return self.real(*args, **kwargs)


@pytest.mark.parametrize(("name", "at"), [("replace", 1), ("fsync", 1)])
def test_a_fault_leaves_the_old_file_and_no_litter(name, at, tmp_path, monkeypatch):
    path = tmp_path / "model"
    write(path, b"old")
    monkeypatch.setattr(os, name, Fault(getattr(os, name), at))
    with pytest.raises(FileError, match=r"model: cannot be written \(No space left on device\)$"):
        write(path, b"new", overwrite=True)
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["model"]
    monkeypatch.undo()
    write(path, b"new", overwrite=True)
    assert path.read_bytes() == b"new"


def test_a_fault_after_the_rename_leaves_the_new_file(tmp_path, monkeypatch):
    path = tmp_path / "model"
    write(path, b"old")
    monkeypatch.setattr(os, "fsync", Fault(os.fsync, 2))
    with pytest.raises(FileError):
        write(path, b"new", overwrite=True)
    assert path.read_bytes() == b"new"


LIMITED = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
from mip.errors import FileError
from mip.output import write
try:
    write({path!r}, b"new" * 1000, overwrite=True)
except FileError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "model"
    write(path, b"old")
    run = [sys.executable, "-c", LIMITED.format(path=str(path))]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{path}: cannot be written (File too large)\n", done.stderr
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["model"]


def test_a_draft_left_by_a_killed_process_is_in_nobodys_way(tmp_path):
    (tmp_path / ".model.part").write_bytes(b"half a fi")
    write(tmp_path / "model", b"new")
    assert [each.name for each in tmp_path.iterdir()] == ["model"]


def test_folders_are_made_and_modes_are_those_of_every_file(tmp_path):
    path = tmp_path / "runs" / "houses" / "model"
    write(path, b"new")
    (tmp_path / "plain").write_bytes(b"")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "runs").write_bytes(b"")
    with pytest.raises(FileError, match="cannot be written"):
        write(tmp_path / "runs" / "model", b"new")


# Nothing in a file is executed.

WATCHED = ("exec", "compile", "import", "open", "socket", "subprocess", "os.", "ctypes", "pickle")


def watched(folder: Path) -> tuple[list, list, list]:
    """Read all files of a folder; give what Python does meanwhile: for their bytes, and for files,
    apart from opening those. An audit hook cannot be taken away: only a copy of this process calls
    this.
    """
    files = sorted(folder.iterdir())
    contents = {path.name: path.read_bytes() for path in files}
    mip.load(files[0])  # what loading imports is imported now
    seen: list[tuple[str, str]] = []
    watching = [True]

    def hook(event, args):
        if watching and event.startswith(WATCHED):
            seen.append((event, str(args)[:200]))

    sys.addaudithook(hook)
    for name, data in contents.items():
        with suppress(MipError):
            unpack(data, name)
    quiet = list(seen)
    for path in files:
        with suppress(MipError):
            load_model(path)
    watching.clear()
    opened = [each for each in seen if each[0] == "open" and str(folder) in each[1]]
    return quiet, [each for each in seen if each not in opened], opened


def test_nothing_is_executed_opened_or_imported_while_a_file_is_read(small, tmp_path):
    setup, data = small
    (tmp_path / "0-good").write_bytes(data)
    for k, each in enumerate(FOREIGN.values(), start=1):
        (tmp_path / f"{k}-foreign").write_bytes(each)
    strange = plan_to_dict(setup.plan)
    for k, kind in enumerate(["os.system", "builtins.eval", "../x", "__class__"]):
        strange["spec"]["branch"]["place"] = {"kind": kind, "columns": ["town"]}
        (tmp_path / f"9-kind-{k}").write_bytes(signed({"plan": strange, "step": 0}))
    code, (quiet, others, opened) = in_a_copy(lambda: watched(tmp_path))
    assert (code, quiet, others) == (0, [], [])
    assert len(opened) == len(list(tmp_path.iterdir()))
