"""What a stage is: declared once, and run the same way as all others.

    @stage(group="masks", inputs=(images, maskcut_masks), settings=ThingMaskSettings, version="1")
    def thing_masks(run: StageRun[ThingMaskSettings]) -> dg.MaterializeResult[None]:
        "Masks of the training images that pass the filters."

The asset's dependencies, the check that its inputs are there, its config, its partitions and the
digest of its result follow from the declaration.
"""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast

import dagster as dg

from assets.stages.locks import reading
from assets.stages.partitions import PartitionKind, require_partitions
from assets.stages.run import materialise, never
from assets.stages.settings import StageConfig, config_for, given_settings, resolve_settings
from assets.stages.shards import Reduce, ShardRunner, ShardTask, Summary, materialise_shards
from assets.stages.store import StageFolder, Store, Version, digest_of
from kernels.errors import ExNihiloError
from segmodels.engine.settings import deciding_settings

Settings = TypeVar("Settings")
Resources = ParamSpec("Resources")
Result = dg.MaterializeResult[None]


@dataclass(frozen=True)
class NoSettings:
    """For a stage without settings."""


class StaleInputError(ExNihiloError, RuntimeError):
    """Two tables that belong together were made from different versions of a third one."""


class UndeclaredInputError(ExNihiloError, LookupError):
    """A stage reads another one that is not among its inputs."""


@dataclass(frozen=True)
class Declaration(Generic[Settings]):
    """What is stated of a stage, see `stage`."""

    name: str
    inputs: tuple[dg.AssetsDefinition, ...]
    settings: type[Settings]
    version: str
    partitions: PartitionKind[Any] | None


@dataclass(frozen=True)
class Work:
    """One shard to compute: the arguments of its function, and what the result depends on."""

    arguments: Any
    depends_on: tuple[object, ...]


class StageRun(Generic[Settings]):
    """One run of a stage: its settings, its inputs, and the ways to store its result."""

    def __init__(
        self,
        declaration: Declaration[Settings],
        context: dg.AssetExecutionContext,
        config: StageConfig | None,
        store: Store,
    ) -> None:
        self._declaration = declaration
        self._config = config
        self._versions: dict[str, Version] = {}
        self._reads = ExitStack()
        self.context = context
        self.store = store

    def log(self, sentence: str) -> None:
        """Write a sentence to the run's log."""
        self.context.log.info(sentence)

    @cached_property
    def key(self) -> Any:
        """The parsed partition key of this run."""
        assert self._declaration.partitions is not None, "the stage is not partitioned"
        return self._declaration.partitions.key_of(self.context)

    @cached_property
    def stage(self) -> StageFolder:
        """The folder that this stage writes to: `Store.stage` of its name and partition.

        Other stages are read by `input`, never through the store.
        """
        partition = None if self._declaration.partitions is None else str(self.key)
        return self.store.stage(self._declaration.name, partition)

    @cached_property
    def given(self) -> dict[str, Any]:
        """The settings that this run names; see `settings` for all."""
        if self._config is None:
            raise dg.Failure(f"{self.stage.name} has no settings, got {self.stage.given}")
        return given_settings(self._config, self.stage)

    @cached_property
    def settings(self) -> Settings:
        """The stage's settings: named by this run, else those of its last run, else the defaults."""
        if self._config is None and not self.stage.given:
            return self._declaration.settings()
        return resolve_settings(self.given, self._declaration.settings, self.stage)

    def input(self, asset: dg.AssetsDefinition) -> Version:
        """The version of an input, of this run's partition where it has partitions.

        It is the current one when it is first asked for, and the same for the rest of the run.

        Raises:
            UndeclaredInputError: the stage does not declare it.
            MissingStageError, DamagedResultError: see `StageFolder.require`.
        """
        name = asset.key.to_user_string()
        if asset not in self._declaration.inputs:
            raise UndeclaredInputError(
                f"{self._declaration.name} reads {name}: add it to the inputs of its declaration"
            )
        if name not in self._versions:
            partition = None if asset.partitions_def is None else str(self.key)
            folder = self.store.stage(name, partition)
            self._versions[name] = self._reads.enter_context(_held(folder))
        return self._versions[name]

    def joined(self, table: dg.AssetsDefinition, rows: dg.AssetsDefinition) -> Version:
        """The version of an input whose rows name those of another by their ids, checked.

        The version is that of `input`; call this instead of it, or for its check alone.

        Raises:
            StaleInputError: it was made from another version of them, so ids mean something else.
        """
        version, current = self.input(table), self.input(rows)
        if version.made_from.get(current.stage) != current.digest:
            raise StaleInputError(
                f"{version.stage} was made from another version of {current.stage} than the "
                f"present one: materialise {version.stage} again (the job recluster does)"
            )
        return version

    def close(self) -> None:
        """Let the inputs be replaced."""
        self._reads.close()

    def inputs(self) -> dict[str, Version]:
        """The versions of all inputs, by stage; `input` returns the same ones in this run."""
        declared = self._declaration.inputs
        return {asset.key.to_user_string(): self.input(asset) for asset in declared}

    def materialise(
        self,
        compute: Callable[[Path], Mapping[str, Any]],
        *depends_on: object,
        settings: Settings | None = None,
        resumable: bool = False,
        on_gpu: Callable[[], bool] = never,
    ) -> Version:
        """Store what `compute` writes, unless the same question is answered already.

        Args:
            compute: fills a folder and returns a JSON-able summary (counts).
            depends_on: what decides the result, as digests of inputs. The declaration's version,
                the settings and the partition are in the digest already; inputs are not, as many
                stages depend on a part of one.
            settings: where they differ from `self.settings`.
            resumable, on_gpu: see `assets.stages.run.materialise`.
        """
        used = settings or self.settings
        digest = self._digest(used, depends_on)
        return materialise(
            self.stage,
            digest,
            used,
            compute,
            self.log,
            made_from=self._made_from(),
            resumable=resumable,
            on_gpu=on_gpu,
        )

    def materialise_shards(
        self,
        function: Callable[[Any, Path], Summary],
        work: Mapping[int, Work],
        runner: ShardRunner,
        *,
        facts: Mapping[str, Any] | None = None,
        reduce: Reduce | None = None,
        on_gpu: Callable[[], bool] = never,
    ) -> tuple[Version, int]:
        """Store what `function` writes for each shard, computing only those that are not there.

        Args:
            function: called as `function(arguments, folder)`; returns counts.
            work: by shard number.
            runner, facts, reduce, on_gpu: see `assets.stages.shards.materialise_shards`.

        Returns:
            The current version and the number of shards that were computed.
        """
        tasks = [
            ShardTask(shard, self._digest(self.settings, own.depends_on), function, own.arguments)
            for shard, own in work.items()
        ]
        return materialise_shards(
            self.stage,
            tasks,
            runner,
            settings=self.settings,
            log=self.log,
            facts=facts,
            reduce=reduce,
            made_from=self._made_from(),
            on_gpu=on_gpu,
        )

    def _made_from(self) -> dict[str, str]:
        origins: dict[str, str] = {}
        for name, version in self._versions.items():
            origins |= version.made_from | {name: version.digest}
        return origins

    def _digest(self, settings: Settings, depends_on: tuple[object, ...]) -> str:
        partition = [] if self._declaration.partitions is None else [str(self.key)]
        decide = deciding_settings(settings)
        return digest_of(self._declaration.version, decide, *partition, *depends_on)


@contextmanager
def _held(stage: StageFolder) -> Iterator[Version]:
    """The current version of a stage, verified, and kept from being removed meanwhile."""
    while True:
        found = stage.current()
        with ExitStack() as held:
            if found is not None:
                held.enter_context(reading(found.folder))
            version = stage.require()
            # Another run may have replaced it before it was held.
            if found is not None and version.folder == found.folder:
                yield version
                return


def stage(
    *,
    group: str,
    version: str,
    inputs: tuple[dg.AssetsDefinition, ...] = (),
    settings: type[Settings] = NoSettings,  # type: ignore[assignment]
    described: Mapping[str, str] | None = None,
    partitions: PartitionKind[Any] | None = None,
    kinds: Collection[str] = (),
) -> Callable[[Callable[Concatenate[StageRun[Settings], Resources], Result]], dg.AssetsDefinition]:
    """Declare a stage: the decorated function becomes an asset of its name.

    Args:
        group: of assets, as the docs list them.
        version: changes when the same inputs and settings give another result.
        inputs: the stages that it reads; no others can be read.
        settings: a frozen dataclass; its fields become the asset's config.
        described: sentences for some of them, shown in the UI.
        partitions: the kind of its partition keys.
        kinds: what it is stored as, for the UI.

    The function takes a `StageRun` and the resources that it names by its parameters. Its typed
    errors end the run with their sentence.
    """

    def decorate(
        function: Callable[Concatenate[StageRun[Settings], Resources], Result],
    ) -> dg.AssetsDefinition:
        declaration = Declaration(function.__name__, inputs, settings, version, partitions)
        config_class = config_for(settings, described or {})

        def body(context: dg.AssetExecutionContext, **arguments: Any) -> Result:
            require_partitions(context)
            config = arguments.pop("config", None)
            run = StageRun(declaration, context, config, arguments.pop("store"))
            try:
                return cast("Callable[..., Result]", function)(run, **arguments)
            except ExNihiloError as error:
                raise dg.Failure(str(error)) from error
            finally:
                run.close()

        _, *resources = inspect.signature(function).parameters.values()
        types = {"context": dg.AssetExecutionContext, "config": config_class, "store": Store}
        if settings is NoSettings:
            del types["config"]
        # Dagster reads config and resources off the signature.
        own = [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=kind)
            for name, kind in types.items()
        ]
        parameters = [*own, *resources]
        body.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        body.__annotations__ = {own.name: own.annotation for own in parameters}
        return dg.asset(
            name=function.__name__,
            group_name=group,
            deps=inputs,
            partitions_def=None if partitions is None else partitions.definition,
            code_version=version,
            kinds=set(kinds),
            description=function.__doc__,
        )(body)

    return decorate


def result(version: Version, metadata: Mapping[str, Any]) -> Result:
    """Dagster's record of a stage: its data version is the digest of what it was made from."""
    return dg.MaterializeResult(
        metadata={
            "folder": dg.MetadataValue.path(str(version.folder)),
            "settings": dg.MetadataValue.json(version.settings),
            **metadata,
        },
        data_version=dg.DataVersion(version.digest),
    )
