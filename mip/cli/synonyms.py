"""What other tools call verbs and options: an unknown one is answered with ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from mip.errors import MipError, hint
from mip.spec import fields_meant

VERBS: Mapping[str, str] = {
    "baseline": "baselines dummy",
    "calibrate": "conformal uncertainty intervals temperature",
    "check": "validate lint verify doctor",
    "crossval": "cv cross-val cross-validate crossvalidate kfold",
    "demo": "example examples",
    "embed": "encode features vectors embeddings",
    "ensemble": "combine merge average blend",
    "evaluate": "eval test score metrics",
    "explain": "shap importance feature-importance interpret why",
    "fit": "train learn run",
    "fit --resume": "resume continue restart",
    "--help": "help man usage commands",
    "lr": "lr-find find-lr lr-finder range-test",
    "new": "init create draft infer-spec",
    "predict": "infer inference apply",
    "replay": "reproduce repeat debug",
    "schema": "json-schema",
    "show": "summary inspect describe info plot",
    "sweep": "grid grid-search",
    "tune": "search hpo hyperopt optimize optuna",
}
"""Our verbs, and the words that others use for them."""


OPTIONS: Mapping[str, str] = {
    "--encoding": "--charset --codec",
    "--force": "--overwrite --exist-ok --yes -f -y",
    "--help": "-h -?",
    "--id": "--id-column --id-col --index --index-col --key",
    "--json": "--metrics",
    "--out": "--output --output-dir --out-dir --output-file --save --save-dir --run-dir -o",
    "--sep": "--delimiter --delim --separator -d",
    "--skip-rows": "--skiprows --skip --header-row",
    "--split": "--part --subset",
    "--target": "--label --target-column --y -t",
    "--tta": "--views --augmentations --test-time-augmentation",
    "--workers": "--jobs --n-jobs --num-workers --processes -j",
    "--set data.table=": "--data --table --csv --train-data",
    "--set train.batch_size=": "--batch-size --batch --bs -b",
    "--set train.epochs=": "--epochs --max-epochs --num-epochs --n-epochs -e",
    "--set train.on_nan=": "--on-nan",
    "--set train.optimizer.kind=": "--optimizer --optim --opt",
    "--set train.optimizer.lr=": "--lr --learning-rate --rate",
    "--set train.optimizer.weight_decay=": "--weight-decay --wd",
    "--set train.patience=": "--patience --early-stopping",
    "--set train.schedule.kind=": "--schedule --scheduler --lr-scheduler",
    "--set train.precision=": "--precision --amp --fp16 --bf16",
    "--set train.seed=": "--seed --random-seed --random-state",
    "--set train.workers=": "--jobs --n-jobs --num-workers --processes -j",
}
"""Our options, and what others call them. A verb is answered with the first that it has."""


ADVICE: Mapping[str, str] = {
    "the first argument is the spec": "--config --config-file --spec -c",
    "the first argument is the model": "--model --checkpoint --ckpt --weights -m",
    "verbs that compute have --device: cpu, cuda, mps or auto": (
        "--gpu --gpus --cuda --cpu --mps --accelerator"
    ),
}
"""What to say of options that mip has no option for."""


def check_verb(word: str, verbs: Iterable[str]) -> None:
    """Raise MipError for a word that is not a verb, naming the one that is meant.

    >>> check_verb("train", ["fit", "predict"])
    Traceback (most recent call last):
    mip.errors.MipError: there is no command 'mip train'; use 'mip fit'
    >>> check_verb("trian", ["fit", "predict"])
    Traceback (most recent call last):
    mip.errors.MipError: there is no command 'mip trian'; did you mean 'fit'? (known: fit, predict)
    """
    known = list(verbs)
    if word in known:
        return
    ours = {other: verb for verb, others in VERBS.items() for other in others.split()}
    if word in ours:
        raise MipError(f"there is no command 'mip {word}'; use 'mip {ours[word]}'")
    near = get_close_matches(word.lower(), [*known, *ours], n=1)
    meant = [ours.get(each, each) for each in near]
    raise MipError(f"there is no command 'mip {word}'{hint(word, known, meant)}")


def check_options(verb: str, takes_value: Mapping[str, bool], words: Sequence[str]) -> None:
    """Raise MipError for the first of a verb's words that is an unknown option, naming the one that
    is meant. `takes_value` has the options of the verb, and whether a value follows them.

    >>> check_options("fit", {"--set": True, "--out": True}, ["a.toml", "--epochs", "5"])
    Traceback (most recent call last):
    mip.errors.MipError: 'mip fit' has no option '--epochs'; use '--set train.epochs=5'
    """
    left = list(words)
    while left:
        word = left.pop(0)
        option, sign, value = word.partition("=")
        if word == "--":
            return
        if option in takes_value:
            if takes_value[option] and not sign and left:
                left.pop(0)
        elif option.startswith("-") and option != "-":
            value = value or next((text for text in left[:1] if not text.startswith("-")), "VALUE")
            meant = _meant(option, value, takes_value)
            raise MipError(f"'mip {verb}' has no option '{option}'{meant}")


def _meant(option: str, value: str, known: Mapping[str, bool]) -> str:
    """Say what is meant by an option that a verb does not have: another of its options, a field of
    the spec, or one that is spelled nearly so, for a vague guess may be `--force`, which deletes.
    """
    others = [word for words in OPTIONS.values() for word in words.split()]
    near = get_close_matches(option, [*known, *others], n=1, cutoff=0.8)
    for word in (option, *near):
        if word not in known and (cure := _cure(word, value, known)):
            return f"; {cure}"
    return hint(option if {*near} & {*known} else "", known)


def _cure(option: str, value: str, known: Mapping[str, bool]) -> str:
    for ours, words in OPTIONS.items():
        name = ours.split()[0]
        if option in words.split() and name in known:
            if ours.endswith("="):
                return f"use '{ours}{value}'"
            return f"use '{ours} {value}'" if known[name] else f"use '{ours}'"
    for advice, words in ADVICE.items():
        if option in words.split():
            return advice
    fields = [path for path in fields_meant(option, "", ()) if "." in path]
    return f"use '--set {fields[0]}={value}'" if fields and "--set" in known else ""
