"""Device, processes and arithmetic of training. Nothing else asks for CUDA or for the rank."""

import os
import warnings
from contextlib import ExitStack, nullcontext

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from lib.engine.processes import meet, rank_and_size
from lib.errors import TrainingStopped, UserError, describe
from lib.model.device import choose_device
from lib.model.products import fast_products

_AMP = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Runtime:
    """This process among those that `torchrun` started (one without it), on its device.

    `with` joins the process group, and leaves it in the end; where one is joined already, the group is that one's.

    Args:
        config: `amp`, `compile` and `accumulate` of a `Config`.

    Raises:
        UserError: there are fewer GPUs than processes on this machine.
    """

    def __init__(self, config):
        self.config = config
        self.rank, self.world_size = rank_and_size()
        local, here = (int(os.environ.get(name, 0)) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
        several_gpus = self.world_size > 1 and torch.cuda.is_available()
        if several_gpus and here > torch.cuda.device_count():
            found = torch.cuda.device_count()
            raise UserError(f"--nproc_per_node: {here} processes are too many for {found} GPUs; start {found} or fewer")
        self.device = choose_device(f"cuda:{local}" if several_gpus else None)
        if several_gpus:
            torch.cuda.set_device(self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.amp == "fp16")
        self._within, self._joined = ExitStack(), False

    def __enter__(self):
        self._within.enter_context(fast_products())
        if self.world_size > 1 and not dist.is_initialized():
            meet("cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo")  # gradients are where the model is
            self._joined = True
        return self

    def __exit__(self, kind, error, trace):
        self._within.close()
        if self._joined and kind is None:
            # All end together: a thread of gloo that has yet to free the tensors of its last exchange when Python ends
            # would abort the process.
            dist.barrier()
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
            # Said of the depthwise convolution's gradient; only strides of axes of length 1 differ.
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
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

    def share_buffers(self, model):
        """Give all processes process 0's buffers: statistics of norms, say, which each has from its own clips."""
        if self.world_size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def unsynchronised(self, model):
        """Return a context in which gradients are gathered without being averaged over processes."""
        return model.no_sync() if self.world_size > 1 else nullcontext()

    def any(self, *flags):
        """Return, of each flag, whether it is set in any process."""
        if self.world_size == 1:
            return flags
        found = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return found.bool().tolist()

    def everyone(self, value):
        """Return the values of all processes, in order of rank; plain Python values."""
        if self.world_size == 1:
            return [value]
        values = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def gathered(self, value):
        """Return the values of all processes, in order of rank, in process 0; nothing, [], in the others."""
        if self.world_size == 1:
            return [value]
        values = [None] * self.world_size if self.is_main else []
        dist.gather_object(value, values or None)
        return values

    def first(self, value):
        """Return the value of process 0."""
        values = [value]
        if self.world_size > 1:
            dist.broadcast_object_list(values)
        return values[0]

    def first_does(self, function):
        """Return function() of process 0; a `TrainingStopped` that it raises there is raised in all."""
        found, problem = None, None
        if self.is_main:
            try:
                found = function()
            except TrainingStopped as error:
                problem = str(error)
        found, problem = self.first((found, problem))
        if problem:
            raise TrainingStopped(problem)
        return found

    def check_same(self, value):
        """Raise UserError unless all processes start from the same value: of their config and checkpoint."""
        if any(other != value for other in self.everyone(value)):
            raise UserError(
                "the nodes read different configs or checkpoints: run the same command on each, in a folder they share"
            )

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

    def __call__(self, *inputs):
        if self._dtype is None:
            return self.model(*inputs)
        with torch.autocast(self._device_type, self._dtype):
            return _as_float32(self.model(*inputs))

    def no_sync(self):
        return self.model.no_sync()


def _as_float32(found):
    return tuple(part.float() for part in found) if isinstance(found, tuple) else found.float()


class _Compiled:
    """A model that goes through torch.compile, in the first call.

    Raises:
        UserError: there is no compiler here that PyTorch can use, such as g++.
    """

    def __init__(self, model):
        self.no_sync = getattr(model, "no_sync", None)
        self._call = torch.compile(model)

    def __call__(self, *inputs):
        try:
            return self._call(*inputs)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = describe(getattr(error, "inner_exception", error))
            raise UserError(f"compile: PyTorch cannot compile the model here ({reason}); set compile: False") from error
