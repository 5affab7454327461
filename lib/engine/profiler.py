"""A trace of a few training steps, and what costs most in them."""

import logging
from contextlib import contextmanager

from torch.profiler import ProfilerActivity, profile, schedule

from lib.files import atomic_path

TRACE = "trace.json"
_WAIT, _WARM, _STEPS = 2, 1, 5

log = logging.getLogger(__name__)


class _Nothing:
    def step(self):
        pass


@contextmanager
def profiled(wanted, folder):
    """Yield an object whose `step` is called after every training step.

    If wanted, steps 4 to 8 of this process are traced: `folder`/trace.json, for chrome://tracing or Perfetto, and the
    ten costliest operators in the log.
    """
    if not wanted:
        yield _Nothing()
        return
    plan = schedule(wait=_WAIT, warmup=_WARM, active=_STEPS, repeat=1)

    def report(traced):
        with atomic_path(folder / TRACE) as temporary:
            traced.export_chrome_trace(str(temporary))
        on_gpu = ProfilerActivity.CUDA in traced.activities
        order = "self_device_time_total" if on_gpu else "self_cpu_time_total"
        table = traced.key_averages().table(sort_by=order, row_limit=10)
        log.info("%s: %d steps; the ten costliest operators:\n%s", folder / TRACE, _STEPS, table)

    with profile(schedule=plan, on_trace_ready=report) as running:
        yield running
