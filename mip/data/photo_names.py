"""What a cell of a photo column says: names of files, or the files themselves as text.

No file is opened or looked up here; `mip.images.resolve_path` finds the file that a name means.
"""

from __future__ import annotations

import ast
import binascii
import json
import re
import unicodedata
from base64 import b64decode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from attrs import frozen

from mip.data.cells import BLANKS, IMAGE_SUFFIXES, as_photos, as_text, is_list

PLACE = re.compile(r"\{(?P<rule>name|[0-9]+:|0+|)\}")
"""The place of the cell in a template."""


ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
"""How an address on the net begins. `file:///` is one too, of this machine."""


_ENDINGS = "|".join(suffix[1:] for suffix in IMAGE_SUFFIXES)
_SEVERAL = re.compile(
    rf"\.(?:{_ENDINGS})(?:[?#][^\s;|,]*)?['\"\])}}]*\s*[\s;|,].*\.(?:{_ENDINGS})\b",
    re.IGNORECASE | re.DOTALL,
)


MIN_BASE64 = 64
"""The smallest photo has more letters in base64."""


_MAGIC = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|BM|II\*\x00|MM\x00\*|RIFF....WEBP|....ftyp|"
    rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51",
    re.DOTALL,
)


@frozen
class PhotoName:
    """A photo that a cell names: its text, the folder that it is relative to, and the template
    that the spec has for it.
    """

    text: str
    root: Path | None = None
    template: str = "{}"

    def __str__(self) -> str:
        return self.text


def template_error(template: str) -> str:
    """Return what is wrong with the template of paths, or "".

    >>> template_error("images/{}.jpg"), template_error("images/")
    ('', 'must have the place of the cell once: {}, {name}, {2:} or {0000}')
    """
    places = PLACE.findall(template)
    if len(places) != 1 or template.count("{") != 1 or template.count("}") != 1:
        return "must have the place of the cell once: {}, {name}, {2:} or {0000}"
    if ADDRESS.match(template):
        return "is an address; download the photos first"
    return "has a NUL" if "\0" in template else ""


def split_template(template: str) -> tuple[str, str]:
    """Split a template into the folder that it names and the rest.

    >>> split_template("../photos/{}.jpg"), split_template("year*/{}"), split_template("{}.*")
    (('../photos/', '{}.jpg'), ('', 'year*/{}'), ('', '{}.*'))
    """
    end = re.split(r"[{*]", template)[0].rfind("/") + 1
    return template[:end], template[end:]


def cuts_folders(template: str) -> bool:
    """Whether a template leaves out the first folders of a path, or the host of an address.

    >>> [cuts_folders(template) for template in ("img/{name}", "{2:}", "img/{}", "{000}")]
    [True, True, False, False]
    """
    found = PLACE.search(template)
    return found is not None and found["rule"].endswith(("name", ":"))


def names_several(text: str) -> bool:
    """Whether a text looks like the names of several photos: more than one of them has the ending
    of an image, and no path goes on behind it.

    >>> [names_several(text) for text in ("a.jpg; b.jpg", "a.jpg/b.jpg", "My photos, 1/b.jpg")]
    [True, False, False]
    """
    return bool(_SEVERAL.search(text))


def names_all(template: str) -> bool:
    """Whether a template means all files that match it: it has a `*` in the name of the file, other
    than as its ending.

    >>> [names_all(template) for template in ("scans/{}_*.*", "img/{}/*", "img_*/{}", "img/{}.*")]
    [True, True, False, False]
    """
    return "*" in template.rpartition("/")[2].removesuffix(".*")


def is_address(text: str) -> bool:
    """Whether a text is an address on the net.

    >>> is_address("https://a.org/1.jpg"), is_address("file:///home/1.jpg"), is_address("1.jpg")
    (True, False, False)
    """
    return bool(ADDRESS.match(text.strip())) and not text.strip().lower().startswith("file:")


def photo_name(template: str, text: str) -> str:
    """Write the path that a cell means: `{}` is the cell, `{name}` the last part of its path,
    `{2:}` its path without the first two folders, and `{0000}` its number with leading zeros. Of an
    address these are what stands behind the host.

    >>> photo_name("img/{}.jpg", "7"), photo_name("img/{0000}.jpg", "7")
    ('img/7.jpg', 'img/0007.jpg')
    >>> photo_name("img/{name}", "/home/ann/7.jpg"), photo_name("{2:}", "/home/ann/img/7.jpg")
    ('img/7.jpg', 'img/7.jpg')
    """
    found = PLACE.search(template)
    if found is None:
        raise ValueError(template_error(template))
    return template[: found.start()] + _cut(found["rule"], text) + template[found.end() :]


def _cut(rule: str, text: str) -> str:
    if not rule:
        return text
    if rule.startswith("0") and not rule.endswith(":"):
        return text.zfill(len(rule))
    parts = path_parts(text)
    return "/".join(parts[-1:] if rule == "name" else parts[int(rule[:-1]) :])


def path_parts(text: str) -> list[str]:
    r"""Split a path, of whatever system, or an address, without its host and query.

    >>> path_parts("C:\\photos\\1.jpg"), path_parts("https://a.org/photos/1.jpg?size=big")
    (['C:', 'photos', '1.jpg'], ['photos', '1.jpg'])
    """
    address = ADDRESS.match(text) if is_address(text) else None
    if address:
        text = re.split(r"[?#]", text[address.end() :])[0].partition("/")[2]
    return [part for part in re.split(r"[/\\\\]", text) if part not in ("", ".")]


def tidy(text: str) -> str:
    r"""Leave out what surrounds a path, and write it with slashes.

    >>> tidy(" 'img\\3.jpg' "), tidy("./img/3.jpg"), tidy("file:///img/3.jpg")
    ('img/3.jpg', 'img/3.jpg', '/img/3.jpg')
    """
    text = text.strip().strip("'\"`\u2018\u2019\u201c\u201d").strip().replace("\\", "/")
    text = re.sub(r"^file://(localhost)?(?=/)", "", text, flags=re.IGNORECASE)
    return re.sub(r"^(\./+)+", "", text)


def normalize_name(name: str) -> str:
    r"""Write a file's name without what systems change in it: case, and whether an accent is a part
    of its letter, as in most texts, or follows it, as on a Mac's disk.

    >>> normalize_name("E\u0301te\u0301.JPG") == normalize_name("\u00e9t\u00e9.jpg")
    True
    """
    return unicodedata.normalize("NFC", name).casefold()


def photos_in(cell: Any, root: Path | None, template: str) -> list[Any]:
    """Return the photos of a cell: names, the bytes of files (also those in base64), pixels; None
    for a missing one.

    >>> photos_in('["a.png", "b.png"]', None, "{}")
    [PhotoName(text='a.png', root=None, template='{}'), PhotoName(text='b.png', root=None, \
template='{}')]
    """
    cells = cell if is_list(cell) else parse_list(cell, (str,) if template == "{}" else (str, int))
    return [_photo(photo, root, template) for photo in as_photos(cells)]


def parse_list(cell: Any, kinds: tuple[type, ...]) -> Any:
    """Read a text that is a list in JSON, Python or numpy, whose entries are all of these types;
    other cells are returned as they are.

    >>> parse_list('["a.png"]', (str,)), parse_list("['a.png' 'b.png']", (str,))
    (['a.png'], ['a.png', 'b.png'])
    >>> parse_list("[1, 2]", (str,))
    '[1, 2]'
    """
    if not isinstance(cell, str) or not re.fullmatch(r"\s*\[.*\]\s*", cell, re.DOTALL):
        return cell
    for read in (json.loads, _read_python):
        try:
            found = read(cell.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list) and all(isinstance(x, kinds) for x in found):
            return found
    return cell


def _read_python(text: str) -> Any:
    # Python would join the strings of an array, which have no commas between them.
    return ast.literal_eval(re.sub(r"(['\"])\s+(?=['\"])", r"\1, ", text))


def objects_in(cell: Any) -> list[Mapping[str, Any]]:
    """Return the objects that a cell holds, or that it is a text of in JSON; none of other cells.

    >>> objects_in('[{"src": "a.png"}]'), objects_in({"src": "a.png"}), objects_in("a.png")
    ([{'src': 'a.png'}], [{'src': 'a.png'}], [])
    """
    if isinstance(cell, str):
        cell = parse_list(f"[{cell}]" if cell.lstrip()[:1] == "{" else cell, (dict,))
    entries = cell if is_list(cell) else [cell]
    return list(entries) if all(isinstance(entry, Mapping) for entry in entries) else []


def _photo(photo: Any, root: Path | None, template: str) -> Any:
    if isinstance(photo, (int, float)) and template != "{}":
        photo = as_text(photo)
    if isinstance(photo, Mapping):  # that only a key of the spec can read
        photo = json.dumps(photo, default=str)
    if not isinstance(photo, str):
        return photo
    if photo.strip().lower() in BLANKS:
        return None
    data = embedded(photo)
    return PhotoName(photo, root, template) if data is None else data


def embedded(text: str) -> bytes | None:
    """Return the file that a text holds: a data URI, or base64; None for other texts.

    >>> embedded("data:image/gif;base64,R0lGODlh")
    b'GIF89a'
    """
    if text[:5].lower() == "data:" and "," in text:
        head, _, body = text.partition(",")
        is_base64 = head.lower().endswith(";base64")
        return _from_base64(body) or b"" if is_base64 else unquote_to_bytes(body)
    if len(text) < MIN_BASE64 or not _MAGIC.match(_from_base64(text.strip()[:32]) or b""):
        return None
    return _from_base64(text)


def _from_base64(text: str) -> bytes | None:
    try:
        text = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
        return b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def texts_in(cells: list[Any], template: str = "{}") -> Iterator[str]:
    """Iterate over the names of photos in cells."""
    for cell in cells:
        yield from (p.text for p in photos_in(cell, None, template) if isinstance(p, PhotoName))
