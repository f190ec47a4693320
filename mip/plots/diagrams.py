"""The tree of a model drawn as SVG: boxes for its parts, and lines between them."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from attrs import frozen

from mip.model import Node, format_shape

# Pixels: the width of a letter, the height of a line, the margin around text, between columns.
LETTER, LINE, PAD, GAP = 7.3, 16, 10, 40


HEIGHT = 3 * LINE + 2 * PAD - 6


ROW = HEIGHT + 16


@frozen
class Box:
    """The box of a part: its position and width in pixels, and its lines of text."""

    path: str
    x: float
    y: float
    width: float
    lines: tuple[str, str, str]


def diagram(nodes: Sequence[Node]) -> str:
    """Draw the parts that `plan_nodes` lists, without layers, as SVG text: branches at the left,
    then their fusions, then the heads.
    """
    placed = boxes(nodes)
    width = max(box.x + box.width for box in placed) + GAP / 2
    height = max(box.y for box in placed) + ROW
    by_path = {box.path: box for box in placed}
    lines = [_draw_line(by_path[start], by_path[end]) for start, end in _edges(list(by_path))]
    return "\n".join([_SVG.format(width, height), *lines, *map(_draw_box, placed), "</svg>", ""])


def boxes(nodes: Sequence[Node]) -> list[Box]:
    """Place a box for every part: a row for each branch, a fusion in the middle of its branches."""
    from rich.cells import cell_len

    texts = {
        node.path: (node.path.split(".")[-1], node.kind, format_shape(node.shape)) for node in nodes
    }
    column = _columns(list(texts))
    widths = [0.0] * (max(column.values()) + 1)
    for path, lines in texts.items():
        width = max(map(cell_len, lines)) * LETTER + 2 * PAD
        widths[column[path]] = max(widths[column[path]], width)
    left = [GAP / 2 + sum(widths[:k]) + GAP * k for k in range(len(widths))]
    return [
        Box(path, left[column[path]], top, widths[column[path]], texts[path])
        for path, top in _tops(list(texts)).items()
    ]


def _columns(paths: Sequence[str]) -> dict[str, int]:
    # By depth from the root, so that no fusion is in the column of its branches.
    depth = {path: path.count(".") for path in paths}
    deepest = max(depth[path] for path in paths if not _is_head(path))
    return {
        path: deepest + 1 + below if _is_head(path) else deepest - below
        for path, below in depth.items()
    }


def _is_head(path: str) -> bool:
    return path.partition(".")[0] == "head"


def _edges(paths: Sequence[str]) -> list[tuple[str, str]]:
    # From branches to their fusion, from the root to the head, from a joint head to its heads.
    edges = []
    for path in paths:
        if "." in path:
            parent = path.rpartition(".")[0]
            edges.append((parent, path) if _is_head(path) else (path, parent))
    return [*edges, ("branch", "head")]


def _tops(paths: Sequence[str]) -> dict[str, float]:
    branches = _center_parents([path for path in paths if not _is_head(path)])
    heads = _center_parents([path for path in paths if _is_head(path)])
    shift = branches["branch"] - heads["head"]
    tops = {**branches, **{path: top + shift for path, top in heads.items()}}
    return {path: top - min(tops.values()) + GAP / 2 for path, top in tops.items()}


def _center_parents(paths: Sequence[str]) -> dict[str, float]:
    # Children come before their parents, so every parent finds the tops of its children.
    tops: dict[str, float] = {}
    row = 0
    for path in paths:
        children = [top for child, top in tops.items() if child.rpartition(".")[0] == path]
        tops[path] = (min(children) + max(children)) / 2 if children else ROW * row
        row += not children
    return tops


def _draw_line(start: Box, end: Box) -> str:
    x, y, end_y = start.x + start.width, start.y + HEIGHT / 2, end.y + HEIGHT / 2
    middle = end.x - GAP / 2
    return (
        f'<path d="M {x:.1f} {y:.1f} H {middle:.1f} V {end_y:.1f} H {end.x:.1f}" '
        'fill="none" stroke="#888"/>'
    )


def _draw_box(box: Box) -> str:
    frame = f'x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{HEIGHT}"'
    texts = [
        f'<text x="{box.x + PAD:.1f}" y="{box.y + PAD + LINE * k + 8:.1f}"{style}>'
        f"{escape(line)}</text>"
        for k, (line, style) in enumerate(zip(box.lines, _STYLES, strict=True))
    ]
    return "\n".join([f'<rect {frame} rx="4" fill="#f6f8fa" stroke="#555"/>', *texts])


_STYLES = (' font-weight="bold"', "", ' fill="#555"')


_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0:.1f} {1:.1f}" width="{0:.0f}" '
    'height="{1:.0f}" font-family="monospace" font-size="12">\n'
    '<rect width="100%" height="100%" fill="white"/>'
)
