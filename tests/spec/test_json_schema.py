"""The JSON Schema of specs says yes to all that `parse` reads, and no where a class's fields do."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from attrs import field, frozen
from attrs.validators import and_, in_, le, max_len, min_len, optional
from conftest import HEADS, NUMBERS
from hypothesis import given
from jsonschema import Draft202012Validator as Validator
from test_spec import specs

import mip
from mip.branches import Continuous
from mip.errors import SpecError
from mip.spec import schema, to_dict

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "specs").rglob("*.toml"))
SCHEMA = schema()
FITS = Validator(SCHEMA)


def test_it_is_a_schema_and_json():
    Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA, allow_nan=False)) == SCHEMA
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_spec_that_is_shipped_is_valid(path):
    FITS.validate(tomllib.loads(path.read_text()))


@given(specs)
def test_whatever_is_dumped_is_valid(spec):
    FITS.validate(tomllib.loads(mip.dump(spec)))


TEXT = NUMBERS + HEADS["regression"]
PHOTOS = '[branch.photos]\nkind = "image"\ncolumns = ["front"]\n'

WRONG = [
    TEXT.replace("continuous", "continous"),
    TEXT.replace('kind = "continuous"', ""),
    TEXT.replace('kind = "continuous"', 'kind = "sgd"'),
    TEXT.replace('kind = "regression"', 'kind = "image"'),
    TEXT.replace('columns = ["town"]', ""),
    TEXT.replace('columns = ["town"]', "columns = []"),
    TEXT.replace('columns = ["town"]', 'columns = "town"'),
    TEXT.replace('columns = ["town"]', "columns = [1]"),
    TEXT.replace("[branch.place]", "[branch.items]"),
    TEXT.replace("[branch.place]", '[branch."2nd"]'),
    TEXT.replace("[branch.place]", '[branch."a b"]'),
    TEXT.replace('columns = ["town"]', 'columns = ["town"]\nembeding_dim = 3'),
    TEXT.replace('columns = ["town"]', 'columns = ["town"]\nembedding_dim = 0'),
    TEXT.replace('columns = ["town"]', 'columns = ["town"]\nembedding_dim = 4097'),
    TEXT.replace('columns = ["town"]', 'columns = ["town"]\nembedding_dim = 6.5'),
    TEXT.replace('columns = ["town"]', 'columns = ["town"]\nembedding_dim = "64"'),
    TEXT.replace('columns = ["town"]', 'columns = ["town"]\nembedding_dim = true'),
    TEXT.replace('columns = ["town"]', 'columns = ["town"]\nunseen_rate = 1.0'),
    TEXT + 'scale = "lgo"\n',
    TEXT + "[trian]\nepochs = 3\n",
    TEXT + "[train]\nepochs = -1\n",
    TEXT + "[train]\nbatch_size = 0\n",
    TEXT + "[train]\npatience = 0\n",
    TEXT + "[train]\ncutmix = true\n",
    TEXT + '[train]\noptimizer = { kind = "adma" }\n',
    TEXT + '[train]\noptimizer = { kind = "sgd", lr = 0 }\n',
    TEXT + '[train]\noptimizer = { kind = "sgd", momentum = 1.0 }\n',
    TEXT + "[data.split]\nseed = 0.5\n",
    TEXT + "[data.split]\ntest = 1.5\nfolds = 'x'\n",
    TEXT + "[[init]]\nmatch = '*'\ninitializer = 'nromal'\n",
    TEXT + "[[init]]\ninitializer = 'normal'\n",
    TEXT + "[warm_start]\nplace = 3\n",
    TEXT + "warm_start = 'a.safetensors'\n",
    TEXT + "[[init]]\nmatch = '*'\ninitializer = 'normal'\noptions = { std = [1] }\n",
    TEXT + "[init]\nmatch = '*'\ninitializer = 'normal'\n",
    TEXT + PHOTOS + "augmentation = { rotate = 200 }\n",
    TEXT + PHOTOS + "size = 4\n",
    TEXT + '[branch.all]\nkind = "fuse"\nbranch = {}\n',
    TEXT + '[branch.all.branch.x]\nkind = "nothing"\n[branch.all]\nkind = "fuse"\n',
    "[branch]\n" + HEADS["regression"],
    NUMBERS,
    HEADS["regression"],
]


def test_the_text_that_the_mistakes_are_made_in_is_valid():
    FITS.validate(tomllib.loads(TEXT + PHOTOS))


@pytest.mark.parametrize("text", WRONG, ids=[*map(str, range(len(WRONG)))])
def test_a_mistake_is_no_valid_spec_to_either(text):
    assert not FITS.is_valid(tomllib.loads(text))
    with pytest.raises(SpecError):
        mip.parse(text)


@pytest.mark.parametrize("key", ["'all.place'", "all.place", "all"])
def test_a_warm_start_may_have_a_name_with_dots(key):
    text = TEXT.replace("[branch.place]", '[branch.all]\nkind = "fuse"\n[branch.all.branch.place]')
    text += f"[warm_start]\n{key} = 'a.safetensors'\n"
    FITS.validate(tomllib.loads(text))
    assert list(mip.parse(text).warm_start) == [key.strip("'")]


def test_kinds_are_told_apart_by_their_word():
    roles = {
        role: {
            each["$ref"].removeprefix("#/$defs/kind.") for each in SCHEMA["$defs"][role]["oneOf"]
        }
        for role in ("Branch", "Head", "TabularNetwork", "OptimizerSpec", "ScheduleSpec")
    }
    assert set().union(*roles.values()) == set(mip.KINDS)
    assert roles["OptimizerSpec"] >= {"adamw", "sgd"}
    assert roles["ScheduleSpec"] >= {"constant", "sequential"}
    for name in mip.KINDS:
        kind = SCHEMA["$defs"][f"kind.{name}"]
        assert kind["properties"]["kind"] == {"const": name}
        assert "kind" in kind["required"]
        assert kind["additionalProperties"] is False


def test_a_field_has_its_type_range_and_default():
    fields = SCHEMA["$defs"]["kind.categorical"]["properties"]
    assert fields["embedding_dim"] == {"type": "integer", "exclusiveMinimum": 0, "maximum": 4096}
    assert fields["unseen_rate"] == {
        "type": "number",
        "minimum": 0,
        "exclusiveMaximum": 1,
        "default": 0.05,
    }
    assert fields["columns"] == {"type": "array", "items": {"type": "string"}, "minItems": 1}
    train = SCHEMA["$defs"]["Train"]["properties"]
    assert train["optimizer"]["default"] == {
        "kind": "adamw",
        "lr": 1e-3,
        "weight_decay": 0.01,
        "betas": [0.9, 0.999],
        "eps": 1e-8,
        "decay_params": "all",
    }
    assert train["mixup"] == {"type": "number", "minimum": 0, "default": 0.0}
    assert train["restore_best"] == {"type": "boolean", "default": False}
    assert SCHEMA["$defs"]["Init"]["properties"]["options"] == {
        "type": "object",
        "additionalProperties": {
            "anyOf": [{"type": "number"}, {"type": "integer"}, {"type": "string"}]
        },
        "default": {},
    }
    words = {"anyOf": [{"type": "string"}, {"type": "object"}]}
    files = {"type": "object", "additionalProperties": words, "default": {}}
    assert SCHEMA["properties"]["warm_start"] == files
    split = SCHEMA["$defs"]["Split"]["properties"]
    assert split["test"] == {"anyOf": [{"type": "integer"}, {"type": "string"}]}


def test_every_class_is_described_by_a_sentence():
    described = [each for each in SCHEMA["$defs"].values() if "properties" in each]
    assert all(each["description"].strip() for each in described)
    assert SCHEMA["$defs"]["Train"]["description"] == "How the model is trained."


@frozen
class Own(Continuous):
    """A kind of one's own. With more to say."""

    kind = "own"
    word: str = field(default="a", validator=[min_len(1), max_len(9), in_(["a", "b"])])
    part: float | None = field(default=None, validator=optional(and_(le(2), le(1.5))))
    deep: tuple[tuple[int, ...], ...] = field(factory=tuple)


def test_a_kind_of_ones_own_is_in_the_schema():
    actual = schema({**mip.KINDS, "own": Own})
    Validator.check_schema(actual)
    own = actual["$defs"]["kind.own"]
    assert own["description"] == "A kind of one's own."
    assert own["properties"]["word"] == {
        "type": "string",
        "minLength": 1,
        "enum": ["a", "b"],
        "default": "a",
    }
    assert own["properties"]["part"] == {"type": "number", "maximum": 1.5}
    assert own["properties"]["deep"]["items"]["items"] == {"type": "integer"}
    assert own["properties"]["deep"]["default"] == []
    spec = mip.parse(TEXT.replace("continuous", "own"), {**mip.KINDS, "own": Own})
    Validator(actual).validate(to_dict(spec))


def test_a_table_of_kinds_need_not_hold_the_defaults():
    actual = schema({name: kind for name, kind in mip.KINDS.items() if name != "adamw"})
    assert "default" not in actual["$defs"]["Train"]["properties"]["optimizer"]
