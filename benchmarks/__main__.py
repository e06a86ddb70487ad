"""Run benchmarks and print their tables.

python -m benchmarks                    all of them, some twenty minutes
python -m benchmarks crf --quick        one of them, smaller sizes
python -m benchmarks --write            and put the tables into docs/
"""

import argparse
import importlib
import sys
from pathlib import Path

from benchmarks.machine import description
from benchmarks.options import Options
from benchmarks.tables import publish

# Each module has `run(options) -> list[Table]`.
NAMES = ("ncut", "parity", "crf", "kmeans", "scoring", "stage", "growth", "backbone_quality")


def main() -> None:
    """Parse the command line and run what it names."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, fewer repetitions")
    parser.add_argument(
        "--data", type=Path, help="real photographs and reference outputs; default: the sample"
    )
    parser.add_argument("--write", action="store_true", help="put the tables into the docs")
    given = parser.parse_args()
    if unknown := set(given.names) - set(NAMES):
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))}; known: {', '.join(NAMES)}")
    options = Options(quick=given.quick, data=given.data)

    about = description()
    print(about, flush=True)
    if given.write:
        publish("machine", about)
    for name in given.names or NAMES:
        tables = importlib.import_module(f"benchmarks.{name}").run(options)
        text = "\n\n".join(table.markdown() for table in tables)
        print(f"\n## {name}\n\n{text}", flush=True)
        if given.write:
            publish(name, text)


if __name__ == "__main__":
    sys.exit(main())
