"""Augmentation: pixels depend only on (key, row id), and known changes give known pixels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

from mip.images import Augment, policies, rectangle_mask
from mip.images.augmentation import (
    brighten,
    crop_matrices,
    erase,
    flip,
    rectangles,
    rotation_matrices,
    shift_matrices,
    warp,
)
from mip.images.policies import OPERATIONS
from mip.rng import uniform

ALL = {
    "flip": True,
    "shift": 0.1,
    "brightness": 0.3,
    "rotate": 30.0,
    "crop": 0.5,
    "contrast": 0.3,
    "saturation": 0.3,
    "hue": 0.1,
    "erase": 0.5,
}
SPECS = [
    *(Augment(**{name: value}) for name, value in ALL.items()),
    *(Augment(auto=name) for name in ("rand", "trivial")),
    Augment(**ALL, auto="rand"),
    Augment(**ALL, auto="trivial"),
]


def photos(rows: int, k: int = 1, size: int = 16, seed: int = 0) -> torch.Tensor:
    drawn = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (rows, k, 3, size, size), dtype=torch.uint8, generator=drawn)


# Laws of every change.


@pytest.mark.parametrize("change", SPECS, ids=str)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_change_depends_only_on_key_and_row_id(change, data):
    key, size = data.draw(st.integers(0, 2**63 - 1)), data.draw(st.sampled_from([8, 13, 32]))
    rows = torch.tensor(data.draw(st.lists(st.integers(0, 10**6), min_size=1, max_size=9)))
    pixels = photos(len(rows), size=size)
    places = torch.tensor(data.draw(st.permutations(range(len(rows)))))
    cut = data.draw(st.integers(0, len(rows)))
    whole = change(pixels, key, rows)
    parts = [change(pixels[part], key, rows[part]) for part in (places[:cut], places[cut:])]
    assert torch.equal(whole[places], torch.cat(parts))


@pytest.mark.parametrize("change", SPECS, ids=str)
def test_the_batch_and_the_random_state_are_not_changed(change):
    pixels, rows = photos(12, k=2), torch.arange(12)
    pixels[:, 1] = pixels[:, 0]
    before, state = pixels.clone(), torch.get_rng_state()
    changed = change(pixels, 5, rows)
    assert (changed.dtype, changed.shape) == (torch.uint8, pixels.shape)
    assert torch.equal(changed[:, 0], changed[:, 1])
    assert not torch.equal(changed, pixels)
    assert torch.equal(pixels, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("change", SPECS, ids=str)
def test_another_key_gives_another_change(change):
    pixels, rows = photos(12), torch.arange(12)
    assert not torch.equal(change(pixels, 1, rows), change(pixels, 2, rows))


def test_without_changes_the_same_tensor_is_returned():
    pixels = photos(3)
    assert Augment()(pixels, 1, torch.arange(3)) is pixels


@pytest.mark.parametrize("change", SPECS, ids=str)
def test_no_rows_stay_no_rows(change):
    assert change(photos(0), 1, torch.arange(0)).shape == (0, 1, 3, 16, 16)


def test_one_change_does_not_alter_the_draws_of_another():
    pixels, rows = photos(8), torch.arange(8)
    mirrored = Augment(flip=True)(pixels, 3, rows)
    both = Augment(flip=True, brightness=0.3)(pixels, 3, rows)
    assert torch.equal(both, Augment(brightness=0.3)(mirrored, 3, rows))
    hued = Augment(flip=True, hue=0.2)(pixels, 3, rows)
    assert torch.equal(hued, Augment(hue=0.2)(mirrored, 3, rows))


def as_ever(change, pixels, key, rows):
    """The first three changes as they were before others joined them."""
    draws, k = uniform(key, rows, 5), pixels.shape[1]
    if change.flip:
        pixels = torch.where((draws[:, 0] < 0.5).view(-1, 1, 1, 1, 1), pixels.flip(-1), pixels)
    if change.shift:
        across, down, zoom = ((draws[:, 1:4] * 2 - 1) * change.shift * 2).unbind(1)
        matrix = torch.zeros(len(rows), 2, 3)
        matrix[:, 0, 0] = matrix[:, 1, 1] = 1 + zoom / 2
        matrix[:, 0, 2], matrix[:, 1, 2] = across, down
        flat = pixels.flatten(0, 1)
        grid = F.affine_grid(matrix.repeat_interleave(k, 0), list(flat.shape), align_corners=False)
        moved = F.grid_sample(flat.float(), grid, padding_mode="border", align_corners=False)
        pixels = moved.round().to(torch.uint8).view_as(pixels)
    factor = (1 + (draws[:, 4] * 2 - 1) * change.brightness).view(-1, 1, 1, 1, 1)
    return (pixels.float() * factor).round().clamp(0, 255).to(torch.uint8)


@given(
    st.builds(Augment, st.booleans(), st.floats(0, 0.49), st.floats(0, 0.99)),
    st.integers(0, 2**63 - 1),
    st.sampled_from([8, 15, 48]),
)
def test_the_first_changes_give_the_pixels_of_version_1(change, key, size):
    pixels, rows = photos(5, k=2, size=size), torch.arange(40, 45)
    assert torch.equal(change(pixels, key, rows), as_ever(change, pixels, key, rows))


# Known pixels.


def test_a_flip_mirrors_the_rows_drawn():
    row = torch.arange(6, dtype=torch.uint8).view(2, 1, 1, 1, 3)
    assert flip(row, torch.tensor([0.2, 0.8])).view(2, 3).tolist() == [[2, 1, 0], [3, 4, 5]]


@pytest.mark.parametrize(
    "matrices",
    [
        shift_matrices(torch.full((2, 3), 0.5), 0.2),
        rotation_matrices(torch.full((2,), 0.5), 90),
        crop_matrices(torch.full((2, 4), 0.3), 1.0),
    ],
    ids=["shift", "rotate", "crop"],
)
def test_the_identity_changes_nothing(matrices):
    pixels = photos(2, size=8)
    assert torch.equal(warp(pixels, matrices), pixels)


def test_a_shift_translates_by_a_fraction_of_the_size():
    image = torch.zeros(1, 1, 3, 8, 8, dtype=torch.uint8)
    image[..., 4] = 255
    right = warp(image, shift_matrices(torch.tensor([[1.0, 0.5, 0.5]]), 0.25))
    assert right[0, 0, 0, 0].tolist() == [0, 0, 255, 0, 0, 0, 0, 0]


def test_a_quarter_turn_is_exact():
    pixels = photos(1, size=8)
    turned = warp(pixels, rotation_matrices(torch.tensor([1.0]), 90))
    assert torch.equal(turned, pixels.rot90(1, (-2, -1)))


def test_a_crop_of_a_corner_shows_the_corner():
    image = torch.zeros(1, 1, 3, 8, 8, dtype=torch.uint8)
    image[..., :4, 4:] = 200
    corner = warp(image, crop_matrices(torch.tensor([[0.0, 0.5, 1.0, 0.0]]), 0.25))
    assert corner[..., :-1, 1:].unique().tolist() == [200]


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 1), st.floats(1.01, 4))
def test_rectangles_keep_their_area_and_stay_inside(size, shape, least, aspect):
    wide, tall = rectangles(torch.tensor([[size, shape]]).double(), (least, 1.0), aspect)
    assert max(wide, tall) <= 1 + 1e-9
    assert least - 1e-9 <= float(wide * tall) <= 1 + 1e-9
    assert 1 / aspect - 1e-9 <= float(wide / tall) <= aspect + 1e-9


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.99), st.floats(0, 0.99))
def test_a_rectangle_of_pixels_is_as_large_as_it_is_drawn(wide, tall, across, down):
    sides = (torch.tensor([wide]), torch.tensor([tall]))
    actual = rectangle_mask(*sides, torch.tensor([[across, down]]), (10, 20))[0, 0, 0]
    assert int(actual.any(0).sum()) == pytest.approx(max(1, wide * 20), abs=0.50001)
    assert int(actual.any(1).sum()) == pytest.approx(max(1, tall * 10), abs=0.50001)
    assert int(actual.sum()) == int(actual.any(0).sum() * actual.any(1).sum())


def test_brightness_stays_in_range():
    image = torch.tensor([0, 100, 250], dtype=torch.uint8).view(1, 1, 3, 1, 1)
    assert brighten(image, torch.tensor([1.0]), 0.2).flatten().tolist() == [0, 120, 255]
    assert brighten(image, torch.tensor([0.0]), 0.2).flatten().tolist() == [0, 80, 200]


def test_erasing_has_the_probability_and_area_of_the_spec():
    dark = torch.zeros(2000, 1, 3, 32, 32, dtype=torch.uint8)
    grey = (erase(dark, uniform(1, torch.arange(2000), 5), 0.3) == 128).float().mean((1, 2, 3, 4))
    assert (grey > 0).float().mean() == pytest.approx(0.3, abs=0.04)
    assert 0.015 < grey[grey > 0].min() < grey.max() < 0.36


POLICIES = {"rand": v2.RandAugment(), "trivial": v2.TrivialAugmentWide()}


def operated(policy, pixels, name, by):
    fill = {torch.Tensor: None}
    return policy._apply_image_or_video_transform(pixels, name, by, policy.interpolation, fill)


@pytest.mark.parametrize("place", range(31))
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_those_of_torchvision(name, place):
    theirs, pixels = POLICIES["trivial"], photos(1, k=2, size=40)[0]
    values = theirs._AUGMENTATION_SPACE[name][0](31, 40, 40)
    by = round(float(values[place]), 4) if values is not None else 0.0
    expected = operated(theirs, pixels, name, by)
    choice = (list(OPERATIONS).index(name) + 0.5) / len(OPERATIONS)
    actual = policies.trivial_augment(pixels, [choice, 0.9, (place + 0.5) / 31])
    assert (actual != expected).float().mean() < 0.01  # rounding decides at a threshold


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("sign", [-1, 1])
def test_rand_augment_has_the_magnitudes_of_torchvision(name, sign):
    theirs, pixels = POLICIES["rand"], photos(1, k=2, size=40)[0]
    magnitudes, signed = theirs._AUGMENTATION_SPACE[name]
    values = magnitudes(31, 40, 40)
    by = float(values[9]) * (sign if signed else 1) if values is not None else 0.0
    expected = operated(theirs, pixels, name, by)
    choice = (list(OPERATIONS).index(name) + 0.5) / len(OPERATIONS)
    turn = 0.9 if sign > 0 else 0.1
    actual = policies.rand_augment(pixels, [choice, turn, 0.0, 0.0])
    assert (actual != expected).float().mean() < 0.01  # rounding decides at a threshold


def test_the_policies_have_the_operations_of_torchvision():
    assert {*OPERATIONS} == {*POLICIES["rand"]._AUGMENTATION_SPACE}
    assert {*OPERATIONS} == {*POLICIES["trivial"]._AUGMENTATION_SPACE}
