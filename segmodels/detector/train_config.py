"""Build the mmengine configuration of a training run from its settings."""

import copy
import multiprocessing
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from segmodels.detector.settings import TrainSettings, config_path


def _resolve(settings: TrainSettings, config: Config) -> dict[str, Any]:
    """Override the configuration's ``defaults`` by the settings that are not None."""
    chosen = {
        name: default if getattr(settings, name, None) is None else getattr(settings, name)
        for name, default in config.defaults.items()
    }
    chosen["learning_rate"] = settings.learning_rate or config.optim_wrapper.optimizer.lr
    return chosen


def build_train_config(
    settings: TrainSettings,
    *,
    images_table: Path,
    pseudo_labels: Path,
    work_dir: Path,
    num_things: int,
    num_stuff: int,
    device: torch.device,
    processes: int = 1,
) -> Config:
    """Build the complete configuration, which mmengine dumps into the work directory.

    Args:
        settings: how to train.
        images_table: Arrow table of the images.
        pseudo_labels: pseudo-label folder.
        work_dir: folder of checkpoints and logs.
        num_things: K.
        num_stuff: S.
        device: of the training.
        processes: of the training; they share the batch.
    """
    config = Config.fromfile(config_path(settings.config))
    chosen = _resolve(settings, config)
    if chosen["batch_size"] % processes:
        raise ValueError(
            f"batch_size must be a multiple of the {processes} processes, got "
            f"{chosen['batch_size']}"
        )
    _fill_model(config, settings, num_things, num_stuff)
    _fill_optimiser(config, chosen, device)
    config.train_cfg = {"type": "PositionTrainLoop", "max_iters": chosen["iterations"]}
    config.train_dataloader = {
        "batch_size": chosen["batch_size"] // processes,
        "num_workers": chosen["workers"],
        "sampler": {"type": "PositionSampler"},
        "dataset": {
            "type": "SeededStream",
            "seed": settings.seed,
            "dataset": {
                "type": "PseudoLabelDataset",
                "images_table": str(images_table),
                "pseudo_labels": str(pseudo_labels),
                "splits": list(settings.splits),
                "keep_empty": settings.keep_empty,
                "pipeline": train_pipeline(chosen["short_sides"], chosen["long_side"]),
            },
        },
    }
    _fill_runtime(config, settings, work_dir, processes)
    return config


def train_pipeline(short_sides: list[int], long_side: int) -> list[dict[str, Any]]:
    """Training transforms: multi-scale resize and horizontal flip."""
    return [
        {"type": "LoadTableImage"},
        {"type": "LoadPseudoLabels"},
        {
            "type": "RandomChoiceResize",
            "resize_type": "Resize",
            "scales": [(max(long_side, short), short) for short in short_sides],
            "keep_ratio": True,
        },
        {"type": "RandomFlip", "prob": 0.5},
        # Small objects can vanish when an image is downscaled.
        {"type": "FilterAnnotations", "min_gt_bbox_wh": (1, 1), "min_gt_mask_area": 1,
         "by_mask": True, "keep_empty": False},
        {"type": "PackDetInputs"},
    ]  # fmt: skip


def prediction_pipeline(short_side: int, long_side: int) -> list[dict[str, Any]]:
    """Prediction transforms: resize."""
    scale = (max(long_side, short_side), short_side)
    return [
        {"type": "LoadTableImage"},
        {"type": "Resize", "scale": scale, "keep_ratio": True},
        {"type": "PackDetInputs"},
    ]


def _fill_model(config: Config, settings: TrainSettings, num_things: int, num_stuff: int) -> None:
    roi_head = config.model.roi_head
    for head in roi_head.bbox_head:
        head.num_classes = num_things
        head.drop_threshold = settings.drop_threshold if settings.drop_loss else None
    roi_head.mask_head.num_classes = num_things
    if settings.class_agnostic_masks is not None:
        roi_head.mask_head.class_agnostic = settings.class_agnostic_masks
    config.model.semantic_head.num_stuff_classes = num_stuff


def _fill_optimiser(config: Config, chosen: dict[str, Any], device: torch.device) -> None:
    config.optim_wrapper.optimizer.lr = chosen["learning_rate"]
    if chosen["mixed_precision"] and device.type == "cuda":
        config.optim_wrapper.type = "AmpOptimWrapper"
    iterations = chosen["iterations"]
    schedule = config.schedule
    # A short run spends at most a tenth of its iterations on the warm-up.
    warmup = min(schedule.warmup, iterations // 10)
    config.param_scheduler = []
    if warmup:
        config.param_scheduler.append(
            {"type": "LinearLR", "start_factor": 0.001, "by_epoch": False, "begin": 0,
             "end": warmup}
        )  # fmt: skip
    if schedule.get("cosine", False):
        config.param_scheduler.append(
            {"type": "CosineAnnealingLR", "T_max": iterations - warmup, "begin": warmup,
             "end": iterations, "by_epoch": False, "eta_min_ratio": 0.01}
        )  # fmt: skip
    else:
        config.param_scheduler.append(
            {"type": "MultiStepLR", "by_epoch": False, "gamma": schedule.drop_factor,
             "milestones": [round(share * iterations) for share in schedule.drops]}
        )  # fmt: skip


def _fill_runtime(config: Config, settings: TrainSettings, work_dir: Path, processes: int) -> None:
    config.work_dir = str(work_dir)
    config.launcher = "pytorch" if processes > 1 else "none"
    config.randomness = {"seed": settings.seed}
    # By default mmengine switches the calling process to "fork".
    config.env_cfg.mp_cfg.mp_start_method = multiprocessing.get_start_method()
    config.default_hooks = {
        "sampler_seed": None,
        "logger": {"type": "LoggerHook", "interval": settings.progress_every},
        "checkpoint": {
            "type": "CheckpointHook",
            "by_epoch": False,
            "interval": settings.checkpoint_every,
            "max_keep_ckpts": settings.keep_checkpoints,
        },
    }
    config.log_processor = {"by_epoch": False, "window_size": settings.progress_every}
    config.custom_hooks = [
        {"type": "IterationSeedHook"},
        {"type": "FiniteLossHook"},
        {"type": "SafeCheckpointHook"},
    ]
    if settings.init_checkpoint is not None:
        path = str(settings.init_checkpoint)
        config.custom_hooks.append({"type": "InitCheckpointHook", "path": path})


def with_file_name(config: Config, path: Path) -> Config:
    """Give a configuration another file name, under which mmengine dumps it."""
    content = copy.deepcopy(config.to_dict())
    return Config(content, cfg_text=config.pretty_text, filename=str(path))
