"""Print what the last run of a clustering reached: `python -m pipelines.show --clustering k0012`."""

import argparse
import json
import sys
from pathlib import Path

import yaml

from assets.stages.manifest import DamagedResultError
from assets.stages.store import Dataset, MissingStageError, Store
from pipelines.settings import read_settings


def main() -> int:
    """Print the metrics table and the path of the report; 1 when there is none yet."""
    settings = read_settings()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clustering", required=True, help="clustering key, for example k0300")
    parser.add_argument("--dataset", help=f"default: that of --config, else {settings.dataset}")
    parser.add_argument("--config", type=Path, help="run config whose dataset is shown")
    arguments = parser.parse_args()
    try:
        named = dataset_of_config(arguments.config) if arguments.config else None
        dataset = arguments.dataset or named or settings.dataset
        store = Store(root=str(settings.store), dataset=Dataset(name=dataset))
        version = store.stage("evaluation", arguments.clustering).require()
    except (MissingStageError, DamagedResultError, ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    from segmodels.report.metrics_table import metrics_table

    metrics = json.loads((version.folder / "metrics.json").read_text())
    sys.stdout.write(f"\n{metrics_table(metrics)}\n\nReport: {version.folder / 'report.html'}\n")
    return 0


def dataset_of_config(config: Path) -> str | None:
    """The dataset that a run config names, None where it leaves that to the environment."""
    content = yaml.safe_load(config.read_text()) or {}
    config_of = content.get("resources", {}).get("dataset", {}).get("config", {})
    return str(config_of["name"]) if "name" in config_of else None


if __name__ == "__main__":
    raise SystemExit(main())
