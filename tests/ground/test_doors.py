"""What a door says of a name that it does not have."""

from __future__ import annotations

import pytest

import mip


@pytest.mark.parametrize(
    ("door", "name", "near"),
    [
        (mip, "Adam", "adam"),
        (mip, "EarlyStopping", "early_stop"),
        (mip, "trainstep", "train_step"),
        (mip.hooks, "early_stopping", "early_stop"),
        (mip.optim, "adamW", "AdamW"),
    ],
)
def test_a_misspelled_name_gets_the_nearest(door, name, near):
    error = rf"module '{door.__name__}' has no attribute '{name}'; did you mean '{near}'\?"
    with pytest.raises(AttributeError, match=f"(?i){error}"):
        getattr(door, name)


def test_a_name_like_no_other_gets_none():
    with pytest.raises(AttributeError, match=r"no attribute 'zzz'$"):
        mip.zzz  # noqa: B018
    assert not hasattr(mip, "__nothing__")
    assert getattr(mip, "nothing_here", 3) == 3


def test_names_are_listed_and_loaded():
    assert {"fit", "adam", "hooks"} <= {*dir(mip)}
    assert mip.adam is mip.optim.adam
