"""Partition kinds: what a run's partition key means, registered on first use."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

import dagster as dg

from segmodels.u2seg.clustering_key import ClusteringKey

PARTITION_TAG = "dagster/partition"
Key = TypeVar("Key")


@dataclass(frozen=True)
class PartitionKind(Generic[Key]):
    """One kind of partition keys.

    Attributes:
        name: of the partitions in Dagster.
        parse: from a key's text to its meaning; a ValueError says what is wrong with it.
        wanted: what a run must name, for the sentence of one that names nothing.
        example: a key of this kind.
    """

    name: str
    parse: Callable[[str], Key]
    wanted: str
    example: str

    @cached_property
    def definition(self) -> dg.DynamicPartitionsDefinition:
        """What the assets of this kind are declared with."""
        return dg.DynamicPartitionsDefinition(name=self.name)

    def key_of(self, context: dg.AssetExecutionContext) -> Key:
        """The key that this run works on, registered as a partition if it is new.

        Raises:
            dg.Failure: the run names no key, or one outside the grammar.
        """
        text = context.run.tags.get(PARTITION_TAG)
        if text is None:
            job = context.job_name if not context.job_name.startswith("__") else "u2seg"
            raise dg.Failure(
                f'{job} needs {self.wanted}: add --tags \'{{"{PARTITION_TAG}": "{self.example}"}}\''
                f" to `dagster job execute`, or --partition {self.example} to `dg launch`"
            )
        try:
            key = self.parse(text)
        except ValueError as error:
            raise dg.Failure(str(error)) from error
        if not context.instance.has_dynamic_partition(self.name, text):
            context.instance.add_dynamic_partitions(self.name, [text])
            context.log.info(f"registered {text} among the {self.name}")
        return key


def parse_clustering(text: str) -> ClusteringKey:
    """Parse `k0300[-s1]`.

    Raises:
        ValueError: outside the grammar, or of a self-training round, which is not built yet.
    """
    key = ClusteringKey.parse(text)
    if key.round is not None:
        raise ValueError(
            f"{text} asks for masks of self-training round {key.round}, but self-training is not "
            f"built yet: use {ClusteringKey(key.num_clusters, seed=key.seed)}"
        )
    return key


CLUSTERINGS = PartitionKind("clusterings", parse_clustering, "a cluster count", "k0300")
KINDS: tuple[PartitionKind[ClusteringKey], ...] = (CLUSTERINGS,)


def require_partitions(context: dg.AssetExecutionContext) -> None:
    """Fail in a run's first stage, not its last, when a later stage needs a key it lacks."""
    layer = context.job_def.asset_layer
    planned = {layer.get(key).partitions_def for key in layer.executable_asset_keys}
    for kind in KINDS:
        if kind.definition in planned:
            kind.key_of(context)
