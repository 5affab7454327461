"""Where and how training runs: device, processes, arithmetic. Nothing else asks for CUDA or for the rank."""

import os
from contextlib import ExitStack, nullcontext

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from lib.errors import UserError, describe
from lib.model.device import choose_device
from lib.model.products import fast_products

_AMP = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Runtime:
    """This process among those that `torchrun` started (one without it), on its device; `with` ends the group.

    Args:
        config: `amp`, `compile` and `accumulate` of a `Config`.

    Raises:
        UserError: there are fewer GPUs than processes on this machine.
    """

    def __init__(self, config):
        self.config = config
        self.rank, self.world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        local = int(os.environ.get("LOCAL_RANK", 0))
        several_gpus = self.world_size > 1 and torch.cuda.is_available()
        self.device = choose_device(f"cuda:{local}" if several_gpus else None)
        if several_gpus:
            torch.cuda.set_device(self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.amp == "fp16")
        self._within = ExitStack()

    def __enter__(self):
        self._within.enter_context(fast_products())
        if self.world_size > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        return self

    def __exit__(self, kind, error, trace):
        self._within.close()
        if dist.is_initialized() and kind is None:
            dist.destroy_process_group()

    @property
    def is_main(self):
        return self.rank == 0

    def sharing(self):
        """Return the arguments of a `Loader` that give this process its share of each batch."""
        return {"rank": self.rank, "world_size": self.world_size}

    def wrap(self, model):
        """Return the callable that trains `model`: compiled, and with gradients averaged over processes, as configured."""
        if self.world_size > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            model = DistributedDataParallel(model, device_ids=ids)
        return self.cast(_Compiled(model) if self.config.compile else model)

    def cast(self, model):
        """Return `model` as a function whose arithmetic is `amp`'s; its results are float32."""
        return _Cast(model, self.device.type, _AMP[self.config.amp])

    def to_device(self, batch):
        """Return a batch with its tensors on the device; nobody waits for the copy. "index" stays where it is."""
        return {
            key: self._move(value) if isinstance(value, torch.Tensor) and key != "index" else value
            for key, value in batch.items()
        }

    def _move(self, tensor):
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def unsynchronised(self, model):
        """Return a context in which gradients are gathered without being averaged over processes."""
        return model.no_sync() if self.world_size > 1 else nullcontext()

    def everyone(self, value):
        """Return the values of all processes, in order of rank; plain Python values."""
        if self.world_size == 1:
            return [value]
        values = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def first(self, value):
        """Return the value of process 0."""
        return self.everyone(value)[0]

    def check_batch_size(self):
        """Raise UserError if a batch has fewer clips than there are processes."""
        if self.config.batch_size < self.world_size:
            raise UserError(
                f"batch_size: {self.config.batch_size} clips are too few for {self.world_size} processes; "
                f"set batch_size to {self.world_size} or more, or start fewer processes"
            )

    def describe(self):
        """Return how the batch is shared out, as a line of the log; None for one process."""
        if self.world_size == 1:
            return None
        size = self.config.batch_size
        each = f"{size // self.world_size}" + (
            "" if size % self.world_size == 0 else f" or {size // self.world_size + 1}"
        )
        return (
            f"{self.world_size} processes, global batch {size} ({each} each), "
            f"learning rate {self.config.learning_rate:g}"
        )


class _Cast:
    def __init__(self, model, device_type, dtype):
        self.model, self._device_type, self._dtype = model, device_type, dtype

    def __call__(self, x):
        if self._dtype is None:
            return self.model(x)
        with torch.autocast(self._device_type, self._dtype):
            return self.model(x).float()

    def no_sync(self):
        return self.model.no_sync()


class _Compiled:
    """A model that goes through torch.compile, in the first call.

    Raises:
        UserError: there is no compiler here that PyTorch can use, such as g++.
    """

    def __init__(self, model):
        self.no_sync = getattr(model, "no_sync", None)
        self._call = torch.compile(model)

    def __call__(self, x):
        try:
            return self._call(x)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = describe(getattr(error, "inner_exception", error))
            raise UserError(f"compile: PyTorch cannot compile the model here ({reason}); set compile: False") from error
