"""Print what the last run of a clustering reached: `python -m pipelines.show --clustering k0012`."""

import argparse
import json
import sys

from assets.stages.store import Dataset, MissingStageError, Store
from pipelines.settings import read_settings


def main() -> int:
    """Print the metrics table and the path of the report; 1 when there is none yet."""
    settings = read_settings()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clustering", required=True, help="clustering key, for example k0300")
    parser.add_argument("--dataset", default=settings.dataset, help="default: %(default)s")
    arguments = parser.parse_args()
    store = Store(root=str(settings.store), dataset=Dataset(name=arguments.dataset))
    try:
        version = store.stage("evaluation", arguments.clustering).require()
    except MissingStageError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    from segmodels.report.metrics_table import metrics_table

    metrics = json.loads((version.folder / "metrics.json").read_text())
    sys.stdout.write(f"\n{metrics_table(metrics)}\n\nReport: {version.folder / 'report.html'}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
