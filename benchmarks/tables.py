"""Benchmarks' results as Markdown, and their place in the documentation."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


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


def publish(name: str, text: str, docs: Path = DOCS) -> None:
    """Replace what stands between a benchmark's marks, on whichever page has them.

    Args:
        name: the benchmark's, as in `<!-- bench: name -->`.
        text: Markdown.
        docs: folder of Markdown files, one with `<!-- bench: name -->` and `<!-- end: name -->`.

    Raises:
        ValueError: no page has the marks.
    """
    start, end = f"<!-- bench: {name} -->", f"<!-- end: {name} -->"
    block = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
    for page in sorted(docs.glob("*.md")):
        content = page.read_text()
        if block.search(content):
            page.write_text(block.sub(lambda _: f"{start}\n{text}\n{end}", content))
            return
    raise ValueError(f"a page in {docs.name} needs the marks {start} and {end} to publish there")
