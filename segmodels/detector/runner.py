"""mmengine's Runner on a given device, with a quiet console."""

# The classes of MMDetection and mmengine have no types.

import logging
import os
from typing import Any, Self

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import MMDistributedDataParallel, convert_sync_batchnorm, revert_sync_batchnorm
from mmengine.runner import Runner


class SegmenterRunner(Runner):
    """Runner with an explicit device; mmengine's takes a GPU whenever there is one."""

    device = torch.device("cpu")

    @classmethod
    def on_device(cls, config: Config, device: torch.device) -> Self:
        """Build a runner whose model trains on ``device``."""
        bound: type[Self] = type(cls.__name__, (cls,), {"device": device})
        return bound.from_cfg(config)

    def wrap_model(self, model_wrapper_cfg: Any, model: torch.nn.Module) -> torch.nn.Module:
        """Move the model to its device; over several GPUs, synchronise its batch norm."""
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
        """Log to the work directory; the console gets errors only."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.ERROR)
        return logger
