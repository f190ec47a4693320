"""The tree of a model as a drawing: boxes and lines, as SVG text."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from attrs import frozen

from mip.model import Node, format_shape

LETTER, LINE, PAD, GAP = 7.3, 16, 10, 40
"""Pixels of a letter's width and a line's height, around the text, and between columns."""


HEIGHT = 3 * LINE + 2 * PAD - 6


ROW = HEIGHT + 16


@frozen
class Box:
    """A part's box: where it stands, and its lines of text. Lengths are pixels."""

    path: str
    x: float
    y: float
    width: float
    lines: tuple[str, ...]


def diagram(nodes: Sequence[Node]) -> str:
    """Draw the parts that `summary` lists, without layers, as SVG: branches to the left, then
    their fusions, the heads to the right.
    """
    placed = boxes(nodes)
    width = max(box.x + box.width for box in placed) + GAP / 2
    height = max(box.y for box in placed) + ROW
    by_path = {box.path: box for box in placed}
    lines = [_line(by_path[path], by_path[after]) for path, after in _edges(list(by_path))]
    return "\n".join([_HEAD.format(width, height), *lines, *map(_drawn, placed), "</svg>", ""])


def boxes(nodes: Sequence[Node]) -> list[Box]:
    """Place a box for every part: branches a row each, a fusion in the middle of its branches."""
    from rich.cells import cell_len

    texts = {node.path: _text(node) for node in nodes}
    column = _columns(list(texts))
    wide = [0.0] * (max(column.values()) + 1)
    for path, lines in texts.items():
        needed = max(map(cell_len, lines)) * LETTER + 2 * PAD
        wide[column[path]] = max(wide[column[path]], needed)
    left = [GAP / 2 + sum(wide[:place]) + GAP * place for place in range(len(wide))]
    return [
        Box(path, left[column[path]], top, wide[column[path]], texts[path])
        for path, top in _tops(list(texts)).items()
    ]


def _text(node: Node) -> tuple[str, ...]:
    return node.path.split(".")[-1], node.kind, format_shape(node.shape)


def _columns(paths: Sequence[str]) -> dict[str, int]:
    # By depth from the root, so that no fusion stands in the column of its branches.
    depth = {path: path.count(".") for path in paths}
    deepest = max(depth[path] for path in paths if not _is_head(path))
    return {
        path: deepest + 1 + below if _is_head(path) else deepest - below
        for path, below in depth.items()
    }


def _is_head(path: str) -> bool:
    return path.partition(".")[0] == "head"


def _edges(paths: Sequence[str]) -> list[tuple[str, str]]:
    # Branches lead to their fusion, the root to the head, and a head of several to each of them.
    pairs = [(path, path.rpartition(".")[0]) for path in paths if "." in path]
    turned = [pair[::-1] if _is_head(pair[0]) else pair for pair in pairs]
    return [*turned, ("branch", "head")]


def _tops(paths: Sequence[str]) -> dict[str, float]:
    branches = _rows([path for path in paths if not _is_head(path)])
    heads = _rows([path for path in paths if _is_head(path)])
    lower = branches["branch"] - heads["head"]
    tops = {**branches, **{path: top + lower for path, top in heads.items()}}
    return {path: top - min(tops.values()) + GAP / 2 for path, top in tops.items()}


def _rows(paths: Sequence[str]) -> dict[str, float]:
    # Children stand before their parents, so every parent finds the places of its children.
    tops: dict[str, float] = {}
    row = 0
    for path in paths:
        below = [top for child, top in tops.items() if child.rpartition(".")[0] == path]
        tops[path] = (min(below) + max(below)) / 2 if below else ROW * row
        row += not below
    return tops


def _line(box: Box, after: Box) -> str:
    x, y, end = box.x + box.width, box.y + HEIGHT / 2, after.y + HEIGHT / 2
    middle = after.x - GAP / 2
    return (
        f'<path d="M {x:.1f} {y:.1f} H {middle:.1f} V {end:.1f} H {after.x:.1f}" '
        'fill="none" stroke="#888"/>'
    )


def _drawn(box: Box) -> str:
    frame = f'x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{HEIGHT}"'
    left = f'<text x="{box.x + PAD:.1f}"'
    texts = [
        f'{left} y="{box.y + PAD + LINE * place + 8:.1f}"{style}>{escape(line)}</text>'
        for place, (line, style) in enumerate(zip(box.lines, _STYLES, strict=True))
    ]
    return "\n".join([f'<rect {frame} rx="4" fill="#f6f8fa" stroke="#555"/>', *texts])


_STYLES = (' font-weight="bold"', "", ' fill="#555"')


_HEAD = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0:.1f} {1:.1f}" width="{0:.0f}" '
    'height="{1:.0f}" font-family="monospace" font-size="12">\n'
    '<rect width="100%" height="100%" fill="white"/>'
)
