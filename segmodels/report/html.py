"""HTML elements of a report; all text is escaped here."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from segmodels.pictures.encode import data_uri, encode_jpeg
from segmodels.pictures.sheets import Picture

DASH = "\N{EN DASH}"
"""Shown for a missing number."""


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, and whether it has text (left) or numbers (right)."""

    name: str
    text: bool = False


class PictureBudget:
    """Encodes the pictures of one page within a total of bytes."""

    def __init__(self, total_bytes: int, pictures: int, *, most_bytes: int = 90_000) -> None:
        # Base64 adds a third.
        self._each = max(2_000, min(most_bytes, int(total_bytes * 0.75) // max(pictures, 1)))

    def image(self, picture: Picture, alternative: str) -> str:
        """An <img> with the picture as a data URI."""
        content = encode_jpeg(picture, max_bytes=self._each)
        height, width = picture.shape[:2]
        return (
            f'<img src="{data_uri(content)}" alt="{escape(alternative)}" '
            f'width="{width}" height="{height}">'
        )


def number(value: float | None, digits: int = 1) -> str:
    """A number for a table; a dash if it is missing or not finite."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return DASH
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    groups: Sequence[tuple[str, int]] = (),
    lead_rows: frozenset[int] = frozenset(),
    raw_columns: frozenset[int] = frozenset(),
) -> str:
    """A table that scrolls horizontally.

    Args:
        columns: headings.
        rows: texts, escaped except in `raw_columns`.
        groups: headings above groups of columns, with the number of columns.
        lead_rows: rows to highlight.
        raw_columns: columns of HTML made by this module.
    """

    def cell(tag: str, column: Column, content: str) -> str:
        return f"<{tag}{' class=text' if column.text else ''}>{content}</{tag}>"

    top = "".join(f'<th colspan="{span}">{escape(name)}</th>' for name, span in groups)
    head = (f'<tr class="groups">{top}</tr>' if groups else "") + (
        "<tr>" + "".join(cell("th", column, escape(column.name)) for column in columns) + "</tr>"
    )
    body = "".join(
        ('<tr class="lead-row">' if index in lead_rows else "<tr>")
        + "".join(
            cell("td", column, text if position in raw_columns else escape(text))
            for position, (column, text) in enumerate(zip(columns, row, strict=True))
        )
        + "</tr>"
        for index, row in enumerate(rows)
    )
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def meter(value: float | None, digits: int = 1) -> str:
    """A percentage as a number with a small bar."""
    text = number(value, digits)
    if value is None or not np.isfinite(value):
        return f'{text}<span class="meter none"></span>'
    share = min(max(value, 0.0), 100.0)
    return f'{text}<span class="meter"><i style="width:{share:.0f}%"></i></span>'


def key(colour: Sequence[int] | NDArray[np.integer], name: str) -> str:
    """A colour swatch with a name."""
    red, green, blue = (int(level) for level in colour)
    return f'<span class="key"><i style="background:rgb({red},{green},{blue})"></i>{escape(name)}</span>'


def size_plot(counts: NDArray[np.integer], label: str) -> str:
    """Cluster sizes by rank, largest first, on a logarithmic scale, as inline SVG."""
    sizes = np.sort(counts)[::-1]
    width, height, left, bottom = 640, 190, 44, 24
    top_value = max(int(sizes[0]) if len(sizes) else 1, 1)
    decades = max(1.0, float(np.log10(top_value)))

    def level(count: float) -> float:
        share = np.log10(count) / decades if count >= 1 else -0.04
        return (height - bottom) - share * (height - bottom - 12)

    grid = "".join(
        f'<line class="grid" x1="{left}" x2="{width}" y1="{level(tick):.1f}" y2="{level(tick):.1f}"/>'
        f'<text x="{left - 6}" y="{level(tick) + 4:.1f}" text-anchor="end">{tick:,}</text>'
        for tick in (10**power for power in range(int(decades) + 1))
    )
    step = (width - left) / max(len(sizes), 1)
    points = [f"{left:.1f},{height - bottom + 6:.1f}"]
    for rank, count in enumerate(sizes.tolist()):
        y = min(level(count), height - bottom + 6)
        points += [f"{left + rank * step:.1f},{y:.1f}", f"{left + (rank + 1) * step:.1f},{y:.1f}"]
    points.append(f"{width:.1f},{height - bottom + 6:.1f}")
    return (
        f'<svg class="plot" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
        f'{grid}<polygon class="area" points="{" ".join(points)}"/>'
        f'<text x="{left}" y="{height - 2}">{escape(label)}</text></svg>'
    )
