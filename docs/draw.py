"""Draw docs/images/graph.svg (assets and partitions) and rooms.svg (imports) from the code itself.

Run it after a change of either:  python docs/draw.py
"""

from html import escape
from pathlib import Path

import grimp

from pipelines.definitions import defs

IMAGES = Path(__file__).parent / "images"
COLOURS = {
    "data": "#7c6f64",
    "features": "#3b7a9e",
    "masks": "#b5562c",
    "clusters": "#7a4f9a",
    "stuff": "#4b8b3b",
    "labels": "#b08a1a",
    "model": "#a33b5c",
    "evaluation": "#2f6f6f",
}
ROOM_COLOURS = {
    "pipelines": "#2f6f6f",
    "assets": "#3b7a9e",
    "segmodels": "#b5562c",
    "kernels": "#7a4f9a",
}
ROOM_STEP = 92
BOX_WIDTH, BOX_HEIGHT, STEP_X, STEP_Y, MARGIN = 168, 38, 208, 64, 24
# Things run down the left lane and stuff down the middle one, so that no arrow crosses a box.
LANES = {"stuff_features": 1, "stuff_model": 1, "stuff_segments": 1, "dino_backbone": 2}
STYLE = (
    "<style>text{font:13px system-ui,sans-serif;fill:#fff;text-anchor:middle}"
    ".note{fill:#555;font-size:12px;text-anchor:start}.line{stroke:#888;fill:none}.far{stroke-dasharray:5 4}</style>"
    '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
    'orient="auto"><path d="M0 0L8 4L0 8z" fill="#888"/></marker>'
)


def layers(parents: dict[str, set[str]]) -> dict[str, int]:
    """Row of each asset: one more than the furthest of its parents."""
    depth: dict[str, int] = {}

    def of(name: str) -> int:
        if name not in depth:
            depth[name] = 1 + max((of(parent) for parent in parents[name]), default=-1)
        return depth[name]

    for name in parents:
        of(name)
    return depth


def reduced(parents: dict[str, set[str]]) -> dict[str, set[str]]:
    """Drop the edges that follow from others, so that the picture shows the flow."""

    def ancestors(name: str) -> set[str]:
        return set(parents[name]).union(*(ancestors(parent) for parent in parents[name]))

    return {
        name: {p for p in own if not any(p in ancestors(q) for q in own if q != p)}
        for name, own in parents.items()
    }


def graph_svg() -> str:
    """The asset graph; a double edge marks the assets with one partition a clustering."""
    graph = defs.resolve_asset_graph()
    nodes = {key.to_user_string(): graph.get(key) for key in graph.materializable_asset_keys}
    parents = {
        name: {key.to_user_string() for key in node.parent_keys} for name, node in nodes.items()
    }
    depth = layers(parents)
    place = {
        name: (MARGIN + LANES.get(name, 0) * STEP_X, MARGIN + row * STEP_Y)
        for name, row in depth.items()
    }
    parts = []
    for name, own in reduced(parents).items():
        x, y = place[name]
        for parent in sorted(own):
            start = (place[parent][0] + BOX_WIDTH / 2, place[parent][1] + BOX_HEIGHT)
            end = (x + BOX_WIDTH / 2, y)
            # A lane's arrow first goes straight down beside the boxes that it passes.
            turn = end[1] - STEP_Y / 2 if start[0] > end[0] else start[1]
            bend = (end[1] - turn) / 2
            parts.append(
                f'<path class="line" marker-end="url(#tip)" d="M{start[0]:g} {start[1]:g}'
                f"L{start[0]:g} {turn:g}C{start[0]:g} {turn + bend:g} {end[0]:g} {end[1] - bend:g}"
                f' {end[0]:g} {end[1]:g}"/>'
            )
    for name, (x, y) in place.items():
        parts.append(_box(name, x, y, COLOURS[nodes[name].group_name], nodes[name].partitions_def))
    width = 2 * MARGIN + STEP_X * max(LANES.values()) + BOX_WIDTH
    height = 2 * MARGIN + STEP_Y * max(depth.values()) + BOX_HEIGHT + 20
    note = "double outline: one partition a clustering key (k0300, k0800, ...)"
    parts.append(f'<text class="note" x="{MARGIN}" y="{height - 10:g}">{note}</text>')
    return _svg(width, height, parts)


def rooms_svg() -> str:
    """The rooms as the code's imports have them: an arrow from a room to those that it imports.

    Arrows that follow from others are left out.
    """
    importers = _importers()
    imports: dict[str, set[str]] = {name: set() for name in importers}
    for name, own in importers.items():
        for importer in own:
            imports[importer].add(name)
    # Numerics lie below every file and every model, whether or not a room imports them itself.
    height = layers({name: own | {"kernels"} - {name} for name, own in imports.items()})
    rows: dict[int, list[str]] = {}
    for name, above in height.items():
        rows.setdefault(max(height.values()) - above, []).append(name)
    widest = max(map(len, rows.values()))
    place = {
        name: (
            # Rows are staggered: arrows that pass a row between do not all run through its middle.
            MARGIN + STEP_X * ((widest - len(names)) / 2 + column + (row % 2) / 4),
            MARGIN + row * ROOM_STEP,
        )
        for row, names in rows.items()
        for column, name in enumerate(sorted(names))
    }
    parts = []
    for name, own in reduced(importers).items():
        end_x, end_y = place[name][0] + BOX_WIDTH / 2, place[name][1]
        for importer in sorted(own):
            x, y = place[importer][0] + BOX_WIDTH / 2, place[importer][1] + BOX_HEIGHT
            bend = (end_y - y) / 2
            # Dashed where it passes behind the rooms of a row between.
            line = "line" if end_y - y < ROOM_STEP else "line far"
            parts.append(
                f'<path class="{line}" marker-end="url(#tip)" d="M{x:g} {y:g}C{x:g} {y + bend:g} '
                f'{end_x:g} {end_y - bend:g} {end_x:g} {end_y:g}"/>'
            )
    for name, (x, y) in place.items():
        colour = ROOM_COLOURS.get(name, ROOM_COLOURS["segmodels"])
        parts.append(_box(name, x, y, colour, None))
    width = 2 * MARGIN + STEP_X * (widest - 0.75) + BOX_WIDTH
    return _svg(width, 2 * MARGIN + ROOM_STEP * max(rows) + BOX_HEIGHT, parts)


def _importers() -> dict[str, set[str]]:
    """The rooms that import a room, by room; those inside segmodels count by themselves."""
    graph = grimp.build_graph("pipelines", "assets", "segmodels", "kernels")
    importers: dict[str, set[str]] = {}
    for module in graph.modules - {"segmodels"}:
        importers.setdefault(_room(module), set())
        for imported in graph.find_modules_directly_imported_by(module):
            if _room(imported) != _room(module):
                importers.setdefault(_room(imported), set()).add(_room(module))
    return importers


def _room(module: str) -> str:
    first, *rest = module.split(".")
    return rest[0] if first == "segmodels" and rest else first


def _box(name: str, x: float, y: float, colour: str, partitioned: object) -> str:
    outer = (
        f'<rect x="{x - 4:g}" y="{y - 4:g}" width="{BOX_WIDTH + 8}" height="{BOX_HEIGHT + 8}" '
        f'rx="9" fill="none" stroke="{colour}" stroke-width="1.5"/>'
    )
    return (
        f'{outer if partitioned else ""}<rect x="{x:g}" y="{y:g}" width="{BOX_WIDTH}" '
        f'height="{BOX_HEIGHT}" rx="6" fill="{colour}"/><text x="{x + BOX_WIDTH / 2:g}" '
        f'y="{y + 25:g}">{escape(name)}</text>'
    )


def _svg(width: float, height: float, parts: list[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}"><rect width="100%" height="100%" fill="#fff"/>'
        f"{STYLE}{''.join(parts)}</svg>\n"
    )


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    (IMAGES / "graph.svg").write_text(graph_svg())
    (IMAGES / "rooms.svg").write_text(rooms_svg())
