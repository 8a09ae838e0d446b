"""Columns of text that line up. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence

GAP = "  "


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    """Return lines of aligned columns, the header first.

    Args:
        header: A name a column.
        rows: Cells as text.
        left: How many columns, from the first, are aligned to the left; the others to the right.
    """
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return [
        GAP.join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def fit_columns(header: Sequence[str], rows: Sequence[Sequence[str]], width: int, *, left: int = 1) -> list[str]:
    """Return the table with as many columns, from the first, as a width holds.

    Args:
        header: Columns, the most wanted first.
        rows: Cells as text.
        width: Characters.
        left: As for `text_table`.
    """
    for num_columns in range(len(header), 1, -1):
        lines = text_table(header[:num_columns], [row[:num_columns] for row in rows], left=left)
        if max(map(len, lines)) <= width:
            return lines
    return text_table(header[:2], [row[:2] for row in rows], left=left)
