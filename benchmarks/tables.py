"""Benchmarks' results as Markdown, and their place in the documentation."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"


@dataclass(frozen=True)
class Table:
    """One table: a sentence that says what was measured, column names, rows of cells."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The table as GitHub Markdown."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"{self.title}\n\n{body}"


def publish(name: str, text: str, page: Path = PAGE) -> None:
    """Replace what stands between the page's marks of this benchmark.

    Args:
        name: the benchmark's, as in `<!-- bench: name -->`.
        text: Markdown.
        page: a Markdown file that holds the marks `<!-- bench: name -->`, `<!-- end: name -->`.

    Raises:
        ValueError: the page lacks the marks.
    """
    start, end = f"<!-- bench: {name} -->", f"<!-- end: {name} -->"
    content = page.read_text()
    block = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
    if not block.search(content):
        raise ValueError(f"{page.name} needs the marks {start} and {end} to publish there")
    page.write_text(block.sub(lambda _: f"{start}\n{text}\n{end}", content))
