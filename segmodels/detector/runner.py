"""mmengine's Runner on the device it is told, with a silent console."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.logging import MMLogger
from mmengine.model import MMDistributedDataParallel, convert_sync_batchnorm, revert_sync_batchnorm
from mmengine.runner import Runner


@contextmanager
def process_group(device: torch.device) -> Iterator[int]:
    """Join torchrun's other processes for the length of a block; yields this process's rank.

    mmengine would join them itself, but insists on a GPU.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or torch.distributed.is_initialized():
        yield get_rank()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield get_rank()
    finally:
        torch.distributed.destroy_process_group()


class SegmenterRunner(Runner):
    """Runner for one segmenter; mmengine's own takes a GPU whenever it sees one."""

    device = torch.device("cpu")

    @classmethod
    def on_device(cls, config: Config, device: torch.device) -> Self:
        """Build a runner whose model trains on ``device``."""
        bound: type[Self] = type(cls.__name__, (cls,), {"device": device})
        return bound.from_cfg(config)

    def wrap_model(self, model_wrapper_cfg: Any, model: torch.nn.Module) -> torch.nn.Module:
        """Move the model; over several GPUs synchronise its batch norm."""
        model = model.to(self.device)
        if not self.distributed:
            return revert_sync_batchnorm(model)
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            model = convert_sync_batchnorm(model, "torch")
        return MMDistributedDataParallel(
            module=model,
            device_ids=[int(os.environ["LOCAL_RANK"])] if on_gpu else None,
            broadcast_buffers=False,
        )

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Log to the work directory; mmengine's warnings about itself are for no console."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.ERROR)
        return logger
