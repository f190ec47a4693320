"""What others call a verb or an option is answered in one line, with what it is called here."""

from __future__ import annotations

import shlex

import pytest

from mip.cli.app import VERBS, command_name, make_app, with_values
from mip.cli.synonyms import ADVICE, OPTIONS
from mip.cli.synonyms import VERBS as OTHER_VERBS

NAMES = [command_name(verb) for verbs in VERBS.values() for verb in verbs]

MISTAKES = {
    "train a.toml": "there is no command 'mip train'; use 'mip fit'",
    "cv a.toml": "there is no command 'mip cv'; use 'mip crossval'",
    "hpo a.toml": "there is no command 'mip hpo'; use 'mip tune'",
    "init a.csv": "there is no command 'mip init'; use 'mip new'",
    "inference m.st a.csv": "there is no command 'mip inference'; use 'mip predict'",
    "score m.st a.csv": "there is no command 'mip score'; use 'mip evaluate'",
    "validate a.toml": "there is no command 'mip validate'; use 'mip check'",
    "summary a.toml": "there is no command 'mip summary'; use 'mip show'",
    "resume a.toml": "there is no command 'mip resume'; use 'mip fit --resume'",
    "help": "there is no command 'mip help'; use 'mip --help'",
    "trian a.toml": "there is no command 'mip trian'; did you mean 'fit'? (known: ",
    "predcit m.st a.csv": "there is no command 'mip predcit'; did you mean 'predict'? (known: ",
    "fit a.toml --epochs 5": "'mip fit' has no option '--epochs'; use '--set train.epochs=5'",
    "fit a.toml --epochs=5": "'mip fit' has no option '--epochs'; use '--set train.epochs=5'",
    "fit --lr": "'mip fit' has no option '--lr'; use '--set train.optimizer.lr=VALUE'",
    "fit --batch-size --seed": (
        "'mip fit' has no option '--batch-size'; use '--set train.batch_size=VALUE'"
    ),
    "fit --out a --seed 3": "'mip fit' has no option '--seed'; use '--set train.seed=3'",
    "fit a.toml -o b": "'mip fit' has no option '-o'; use '--out b'",
    "fit a.toml --overwrite": "'mip fit' has no option '--overwrite'; use '--force'",
    "fit --config a.toml": ("'mip fit' has no option '--config'; the first argument is the spec"),
    "fit a.toml --gpu": (
        "'mip fit' has no option '--gpu'; verbs that compute have --device: cpu, cuda, mps or auto"
    ),
    "fit a.toml --jobs 2": "'mip fit' has no option '--jobs'; use '--workers 2'",
    "sweep a.toml --jobs 2": "'mip sweep' has no option '--jobs'; use '--workers 2'",
    "predict m.st a.csv --views 3": "'mip predict' has no option '--views'; use '--tta 3'",
    "predict m.st a.csv --epochs 3": "'mip predict' has no option '--epochs' (known: --device,",
    "fit a.toml --resmue": "'mip fit' has no option '--resmue'; did you mean '--resume'? (known: ",
    "fit --epoch 3 a.toml": "'mip fit' has no option '--epoch'; use '--set train.epochs=3'",
    "fit a.toml --epohcs 3": "'mip fit' has no option '--epohcs'; use '--set train.epochs=3'",
    "fit a.toml --dropout 0.1": "'mip fit' has no option '--dropout'; use '--set head.dropout=0.1'",
    "check a.toml --image-size 32": (
        "'mip check' has no option '--image-size'; use '--set branch.NAME.size=32'"
    ),
    "fit a.toml --focus": "'mip fit' has no option '--focus' (known: --cache,",
    "fit a.toml --forse": "'mip fit' has no option '--forse'; did you mean '--force'? (known: ",
    "predict m.st a.csv --dropout 0": "'mip predict' has no option '--dropout' (known: --device,",
    "fit -h": "'mip fit' has no option '-h'; use '--help'",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_synonym_is_answered_in_one_line(words, run):
    code, out, err = run(*shlex.split(words))
    assert (code, out) == (2, "")
    assert err.startswith(f"mip: error: {MISTAKES[words]}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        "check a.toml --set train.note=--lr",
        "check a.toml --set --epochs",
        "check -- --epochs",
        "new a.csv --target --seed",
    ],
)
def test_a_value_may_look_like_an_option(words, run):
    assert "has no option" not in run(*shlex.split(words))[2]


def test_synonyms_propose_what_is_there():
    assert {name.split()[0] for name in OTHER_VERBS} <= {*NAMES, "--help"}
    words = [word for text in OTHER_VERBS.values() for word in text.split()]
    assert len(words) == len(set(words))
    assert not set(words) & set(NAMES)
    options = {word for text in [*OPTIONS.values(), *ADVICE.values()] for word in text.split()}
    assert all(word.startswith("-") for word in options)


@pytest.mark.parametrize("word", ["--epoch", "--fold", "--freeze", "--format", "--core"])
def test_the_option_that_deletes_is_no_guess(word, run):
    for name in NAMES:
        assert "use '--force'" not in (err := run(name, word)[2])
        assert "did you mean '--force'" not in err


def test_options_proposed_are_options_of_a_verb(run):
    known = " ".join(run(name, "--help")[1] for name in NAMES)
    assert all(name.split()[0] in known for name in OPTIONS)


def test_every_verb_is_in_a_group():
    app = make_app()
    assert len(app.registered_commands) == len(NAMES) == len(set(NAMES))


WRONG = {
    "tune a.toml --trials 0": "Invalid value for '--trials'",
    "predict": "Missing argument 'MODEL'",
    "new a.csv --day-first=3": "'--day-first' does not take a value",
}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_value_is_one_line(words, run):
    code, out, err = run(*words.split())
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert WRONG[words] in err


def test_an_option_that_may_stand_alone_takes_no_table(tmp_path):
    (tmp_path / "houses.csv").write_text("a\n1\n")
    words = ["--pretrained", str(tmp_path / "houses.csv")]
    assert with_values(words) == ["--pretrained", "DEFAULT", words[1]]
