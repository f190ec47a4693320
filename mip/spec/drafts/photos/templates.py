"""Templates of paths that may lead from the names in cells to the images beside a table."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from itertools import chain, takewhile
from pathlib import Path
from typing import NamedTuple

from attrs import frozen

from mip.data import is_address, normalize_name, path_parts, spread_evenly, tidy
from mip.images import list_images

TRIED = 20
"""Names from which templates are drawn up."""


SEARCHED = 2000
"""Images in whose paths names are looked for."""


@frozen
class Folder:
    """The images below a table's folder, listed when they are first asked for."""

    root: Path

    @cached_property
    def images(self) -> list[str]:
        """The paths of images, relative to the folder, with slashes."""
        return list(list_images(self.root))

    @cached_property
    def paths(self) -> frozenset[str]:
        """The same, to look up."""
        return frozenset(self.images)

    @cached_property
    def names(self) -> dict[str, list[tuple[str, ...]]]:
        """The parts of the paths of images, by name and by stem (see `mip.data.normalize_name`)."""
        found: dict[str, list[tuple[str, ...]]] = {}
        for path in self.images:
            parts = tuple(path.split("/"))
            name = normalize_name(parts[-1])
            stem = os.path.splitext(name)[0]
            for key in {name, stem, stem.lstrip("0") or "0"}:
                found.setdefault(key, []).append(parts)
        return found


def templates_of(names: Sequence[str], folder: Folder) -> Iterator[str]:
    """Propose templates by which names are those of images, those that suit most first."""
    tried = [names[k] for k in spread_evenly(len(names), TRIED)]
    counts = Counter(pair for name in tried for pair in dict.fromkeys(_fitting(name, folder)))
    yield from (place + rest for (place, rest), _ in counts.most_common())
    for rest in dict.fromkeys(rest for _, rest in counts):
        if pattern := _common_pattern([place for place, other in counts if other == rest]):
            yield pattern + rest


def _fitting(name: str, folder: Folder) -> Iterator[tuple[str, str]]:
    """Propose folders, and templates inside them, that lead from a name to images."""
    text = tidy(re.sub(r"\.0+$", "", name))
    wanted = path_parts(normalize_name(text))
    keys = [*wanted[-1:], *(part.lstrip("0") for part in wanted[-1:] if part.isdecimal())]
    for parts in (parts for key in dict.fromkeys(keys) for parts in folder.names.get(key, ())):
        place, (stem, ending) = "".join(f"{p}/" for p in parts[:-1]), os.path.splitext(parts[-1])
        if re.search(r"[{}*]", place):
            continue
        if normalize_name(parts[-1]) == wanted[-1]:
            yield from _ways(text, wanted, parts, "")
        elif normalize_name(stem) == wanted[-1]:
            yield from _ways(text, wanted, parts, ending)
            yield from _ways(text, wanted, parts, ".*")
        elif stem.isdecimal() and len(wanted) == 1 and int(stem) == int(wanted[0]):
            yield place, f"{{{'0' * len(stem)}}}{ending}"
            yield place, f"{{{'0' * len(stem)}}}.*"


def _ways(
    text: str, wanted: Sequence[str], parts: Sequence[str], ending: str
) -> Iterator[tuple[str, str]]:
    """Propose how a path becomes that of an image: by its name alone, or by its last parts."""
    ours = [*map(normalize_name, parts[:-1]), wanted[-1]]
    pairs = zip(reversed(ours), reversed(wanted), strict=False)
    n_same = len([*takewhile(lambda pair: pair[0] == pair[1], pairs)])
    n_cut = len(wanted) - n_same
    is_plain = not n_cut and not text.startswith("/") and not is_address(text)
    if not is_plain:
        yield "".join(f"{part}/" for part in parts[:-1]), f"{{name}}{ending}"
    rest = "{}" if is_plain else f"{{{n_cut}:}}"
    yield "".join(f"{part}/" for part in parts[: len(parts) - n_same]), rest + ending


def _common_pattern(folders: Sequence[str]) -> str:
    """Return a pattern of several folders of equal depth, or "".

    >>> _common_pattern(["images_1/png/", "images_2/png/"]), _common_pattern(["a/"])
    ('images_*/png/', '')
    """
    parts = [folder.split("/") for folder in dict.fromkeys(folders)]
    if len(parts) < 2 or len({len(each) for each in parts}) > 1:
        return ""
    return "/".join(map(_pattern, zip(*parts, strict=True)))


def _pattern(words: Sequence[str]) -> str:
    """Return what words have in common: themselves, or a pattern with what they begin with.

    >>> _pattern(["png", "png"]), _pattern(["_1", "_10"]), _pattern(["front_a", "front_b"])
    ('png', '_*', 'front_*')
    """
    different = dict.fromkeys(words)
    if len(different) == 1:
        return words[0]
    letters = takewhile(lambda column: len(set(column)) == 1, zip(*different, strict=False))
    return re.sub("[0-9]+$", "", "".join(column[0] for column in letters)) + "*"


class _Hit(NamedTuple):
    """A name within the path of an image: what stands before it and behind it in its part of the
    path, the folders before that part, and the parts behind it.
    """

    name: str
    folders: tuple[str, ...]
    before: str
    behind: str
    ending: str
    inside: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, bool, bool, int]:
        """What hits have in common that one template may describe."""
        return len(self.folders), bool(self.before), bool(self.behind), len(self.inside)


def templates_around(names: Collection[str], folder: Folder) -> Iterator[str]:
    """Propose templates that mean all images whose paths have a name in them: those in the folder
    of each row, or with a number behind the name.
    """
    wanted = {normalize_name(tidy(name)) for name in names}
    searched = [folder.images[k] for k in spread_evenly(len(folder.images), SEARCHED)]
    groups: dict[object, list[_Hit]] = defaultdict(list)
    for hit in chain.from_iterable(_hits(path, wanted) for path in searched):
        groups[hit.folders, hit.shape].append(hit)
        groups[hit.shape].append(hit)
    by_names = sorted(groups.values(), key=lambda hits: -len({hit.name for hit in hits}))
    yield from dict.fromkeys(map(_generalize, by_names[:TRIED]))


def _hits(path: str, wanted: Collection[str]) -> Iterator[_Hit]:
    """Find wanted names in a path, between the borders of its words and numbers."""
    parts = tuple(path.split("/"))
    if re.search("[{}*]", path):
        return
    for k, part in enumerate(parts):
        stem, ending = os.path.splitext(part) if k == len(parts) - 1 else (part, "")
        words = [word.span() for word in re.finditer(r"[0-9]+|[^\W\d_]+", stem)][:24]
        starts, ends = [start for start, _ in words], [end for _, end in words]
        for start, end in ((a, b) for a in starts for b in ends if a < b):
            name = normalize_name(stem[start:end])
            if name in wanted:
                yield _Hit(name, parts[:k], stem[:start], stem[end:], ending, parts[k + 1 :])


def _generalize(hits: Sequence[_Hit]) -> str:
    """Write the template that all hits, of one shape, suit.

    >>> paths = ("scans/P1_1.png", "scans/P2_1.png", "scans/P2_12.png")
    >>> _generalize([hit for path in paths for hit in _hits(path, {"p1", "p2"})])
    'scans/{}_*.png'
    """
    folders = [_pattern(words) for words in zip(*(hit.folders for hit in hits), strict=True)]
    inside = [_pattern(words) for words in zip(*(hit.inside for hit in hits), strict=True)]
    before = _pattern([hit.before[::-1] for hit in hits])[::-1]
    endings = {hit.ending for hit in hits}
    ending = endings.pop() if len(endings) == 1 else ".*"
    name = f"{before}{{}}{_pattern([hit.behind for hit in hits])}{ending}"
    return "/".join([*folders, name, *inside])
