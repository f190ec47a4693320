"""Mixing: rows in pairs, derived from the key and the batch's rows, targets in proportion."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
import torch.nn.functional as F
from attrs import evolve
from conftest import bits, set_up, spec_of
from hypothesis import given
from hypothesis import strategies as st

import mip
from mip.errors import DataError
from mip.model import Batch, cutmix, has_photos, mixup, random_choice
from mip.model.mixing import Pairs, blend, draw_pairs, mix_numbers, paste
from mip.rng import derive

WAYS = [mixup, cutmix]


def batch_of(target: torch.Tensor, size: int = 8) -> Batch:
    n, drawn = len(target), torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, 2, 3, size, size), dtype=torch.uint8, generator=drawn)
    inputs = {
        "photo": {"pixels": pixels, "present": torch.ones(n, 2, dtype=torch.int8)},
        "place": torch.arange(n)[:, None],
        "size": torch.arange(n, dtype=torch.float32)[:, None],
    }
    return Batch(inputs, target, torch.arange(n) * 3)


@pytest.mark.parametrize("way", WAYS)
@given(st.integers(0, 2**63 - 1), st.floats(0.05, 4), st.integers(0, 7))
def test_a_mix_is_a_function_of_key_and_rows(way, key, alpha, n):
    batch, state = batch_of(torch.linspace(0, 1, n)), torch.get_rng_state()
    before = bits(batch)
    mixed = way(alpha)(batch, key)
    assert bits(mixed) == bits(way(alpha)(batch, key))
    assert bits(batch) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert mixed.inputs["photo"]["pixels"].dtype == torch.uint8
    assert torch.equal(mixed.inputs["place"], batch.inputs["place"])
    assert torch.equal(mixed.row, batch.row)


@pytest.mark.parametrize("way", WAYS)
def test_another_key_or_other_rows_mix_otherwise(way):
    batch, actual = batch_of(torch.linspace(0, 1, 6)), way(1.0)
    others = actual(batch, 2), actual(batch._replace(row=batch.row + 1), 1)
    assert all(bits(other) != bits(actual(batch, 1)) for other in others)


@pytest.mark.parametrize("way", WAYS)
def test_target_and_numbers_are_mixed_in_one_proportion(way):
    batch = batch_of(torch.arange(6.0))
    mixed = way(1.0)(batch, 4)
    assert torch.equal(mixed.target, mixed.inputs["size"][:, 0])
    assert not torch.equal(mixed.target, batch.target)


@given(st.integers(0, 2**63 - 1), st.floats(0.01, 10), st.integers(1, 40))
def test_each_row_is_a_partner_once_and_keeps_the_larger_share(seed, alpha, rows):
    pairs = draw_pairs(seed, alpha, rows)
    assert sorted(pairs.partner.tolist()) == list(range(rows))
    assert ((pairs.share >= 0.5) & (pairs.share <= 1)).all()


def pairs_of(own: float) -> Pairs:
    return Pairs(torch.tensor([1, 0]), torch.full((2,), own), torch.full((2, 2), 0.5))


def test_photos_are_blended_and_pasted_by_the_share():
    pixels = torch.zeros(2, 1, 3, 8, 8, dtype=torch.uint8)
    pixels[1] = 200
    assert blend(pixels, pairs_of(0.75)).float().mean((1, 2, 3, 4)).tolist() == [50, 150]
    square = paste(pixels, pairs_of(0.75))
    assert square.float().mean((1, 2, 3, 4)).tolist() == [50, 150]
    assert square.unique().tolist() == [0, 200]


def test_a_missing_number_is_never_spread():
    given_ = torch.tensor([1.0, float("nan")])
    assert torch.equal(mix_numbers(given_, pairs_of(0.6)).isnan(), given_.isnan())
    assert mix_numbers(given_, pairs_of(0.6))[0] == 1


@pytest.mark.parametrize("way", WAYS)
def test_a_photo_is_mixed_with_photos_alone(way):
    batch = batch_of(torch.arange(6.0))
    photo = batch.inputs["photo"]
    photo["present"][::2] = 0
    mixed = way(1.0)(batch, 4).inputs["photo"]
    assert torch.equal(mixed["pixels"][::2], photo["pixels"][::2])
    assert torch.equal(mixed["present"], photo["present"])


@pytest.mark.parametrize("way", WAYS)
def test_classes_become_probabilities_that_cross_entropy_takes(way):
    mixed = way(1.0, classes=3)(batch_of(torch.tensor([0, 1, 2, 1])), 4).target
    assert mixed.shape == (4, 3)
    torch.testing.assert_close(mixed.sum(1), torch.ones(4))
    assert F.cross_entropy(torch.zeros(4, 3), mixed).isfinite()


def test_what_cannot_be_mixed_is_said():
    with pytest.raises(DataError, match="needs the number of classes"):
        mixup()(batch_of(torch.tensor([0, 1])), 1)
    with pytest.raises(DataError, match="without a target"):
        mixup()(batch_of(torch.zeros(2))._replace(target=None), 1)
    for way in WAYS:
        with pytest.raises(ValueError, match="'alpha' must be > 0"):
            way(0.0)
        with pytest.raises(ValueError, match="'alpha' must be < inf"):
            way(float("inf"))
    with pytest.raises(ValueError, match="Length of 'mixes' must be >= 1"):
        random_choice()


@given(st.integers(0, 2**63 - 1), st.integers(0, 7))
def test_a_batch_gets_one_of_the_ways_whole(key, n):
    batch, ways = batch_of(torch.linspace(0, 1, n)), [mixup(0.2), cutmix(1.0)]
    actual = bits(random_choice(*ways)(batch, key))
    assert actual in [bits(way(batch, key)) for way in ways]
    assert actual == bits(random_choice(*ways)(batch, key))
    assert bits(random_choice(ways[0])(batch, key)) == bits(ways[0](batch, key))


def test_the_way_is_drawn_evenly_from_key_and_rows():
    batch, ways = batch_of(torch.zeros(4)), random_choice(mixup(0.2), cutmix(1.0))
    others = [batch._replace(row=batch.row + k) for k in range(400)]
    for words in (
        [ways.choose(batch, key).name for key in range(400)],
        [ways.choose(other, 0).name for other in others],
    ):
        assert 160 < words.count("mixup") < 240


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("head", ["regression", "binary", "multiclass"])
def test_every_head_trains_on_mixed_rows_and_resumes_anywhere(table, head, way):
    setup = set_up(spec_of(head), table)
    classes = len(setup.plan.facts["head"]["classes"]) if head == "multiclass" else None
    batches = mip.augment(way(0.4, classes), 5)(setup.batches)
    whole = mip.fit(setup.step, batches, setup.state, epochs=2)
    assert all(value.isfinite().all() for value in whole.params.values())
    for expected, got in zip(
        islice(batches.iter_from(0), 3, 6), islice(batches.iter_from(3), 3), strict=True
    ):
        assert bits(got) == bits(expected)


def test_the_key_of_the_stage_comes_of_seed_and_epoch(table):
    setup = set_up(spec_of("regression"), table)
    plain, mixed = (
        next(setup.batches.iter_from(0)),
        next(mip.augment(mixup(1.0), 5)(setup.batches).iter_from(0)),
    )
    assert bits(mixed) == bits(mixup(1.0)(plain, derive("augment", 5, 0)))
    assert evolve(mixup(1.0), alpha=2.0) == mixup(2.0)


ODD = {
    "numbers": (torch.arange(8.0).view(4, 2), torch.arange(4.0).view(4, 1)),
    "whole numbers": (torch.arange(8).view(4, 2), torch.ones(4, 2, dtype=torch.int64)),
    "bytes": (torch.ones(4, 5, dtype=torch.uint8), torch.ones(4, 5, dtype=torch.int8)),
    "floats of a photo": (torch.rand(4, 1, 3, 8, 8), torch.ones(4, 1, dtype=torch.int8)),
    "one number each": (torch.arange(4.0), torch.ones(4, dtype=torch.int8)),
    "a tree": ({"a": torch.rand(4, 2)}, torch.ones(4, 1, dtype=torch.int8)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("pixels", "present"), ODD.values(), ids=ODD)
def test_inputs_with_the_names_of_photos_are_mixed_as_what_they_are(way, pixels, present):
    inputs = {"pixels": pixels, "present": present}
    assert not has_photos({"own": inputs})
    actual = way(1.0)(Batch({"own": inputs}, torch.rand(4), torch.arange(4)), 3).inputs["own"]
    other = way(1.0)(Batch({"a": pixels, "b": present}, torch.rand(4), torch.arange(4)), 3).inputs
    assert bits(actual["pixels"]) == bits(other["a"])
    assert bits(actual["present"]) == bits(other["b"])
