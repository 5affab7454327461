"""Commands in this process, which has the libraries loaded: a process of its own takes seconds to load them."""

import importlib
import io
import logging
import os
import signal
import sys
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from typing import NamedTuple
from unittest.mock import patch

from lib.cli import run


class Done(NamedTuple):
    """What a command left, by the names of `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def run_here(module, *arguments, folder=None):
    """Run the command of a module, such as "tools.convert_h36m", in a folder; return what it left as `Done`."""
    main = importlib.import_module(module).main
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2)]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    code = 0
    with ExitStack() as stack:
        stack.callback(os.chdir, os.getcwd())
        for number, handler in handlers.items():
            stack.callback(signal.signal, number, handler)
        stack.enter_context(patch.object(sys, "argv", [module, *map(str, arguments)]))
        stack.enter_context(redirect_stdout(streams[0]))
        stack.enter_context(redirect_stderr(streams[1]))
        warnings = logging.StreamHandler(streams[1])  # as Python has it where nothing else takes messages
        warnings.setLevel(logging.WARNING)
        logging.getLogger().addHandler(warnings)
        stack.callback(logging.getLogger().removeHandler, warnings)
        os.chdir(folder or os.curdir)
        try:
            run(main)
        except SystemExit as end:
            code = end.code or 0
    return Done(code, *(stream.buffer.getvalue().decode() for stream in streams))
