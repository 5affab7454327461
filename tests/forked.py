"""Commands that start in a tenth of a second: forks of one process that has imported what train.py does.

`python forked.py` is that process. Each line of its input is a request, a JSON dict:

    {"start": [module of the command, arguments], "cwd": folder, "output": file, "variables": of its environment,
     "at": [function, number, signal]}
        -> {"process": its number}
    {"wait": number of a process} -> {"code": its exit code, -N for signal N}

"at" is optional: the process gets the signal just before call `number` (from 1) of a function, such as "os:replace".
"""

import atexit
import functools
import importlib
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Forks:
    """The requests as methods, to a process that `close` ends."""

    def __init__(self):
        self._begins = {}  # of processes: what is in their output before
        variables = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**variables, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            cwd=ROOT,
            text=True,
        )

    def close(self):
        self._server.stdin.close()
        self._server.wait(60)

    def start(self, folder, *arguments, at=None, command="train", variables=None):
        """Start a command in a folder, and return the number of its process; `output` there gets what it prints."""
        start, output = [command, *map(str, arguments)], folder / "output"
        before = output.stat().st_size if output.exists() else 0
        request = {"start": start, "cwd": str(folder), "output": str(output), "at": at, "variables": variables or {}}
        process = self._ask(request)["process"]
        self._begins[process] = before
        return process

    def wait(self, process):
        """Return the exit code of a process that was started."""
        return self._ask({"wait": process})["code"]

    def train(self, folder, *arguments, code=0, **options):
        """Run train.py to its end, and return what it printed."""
        return self.finish(self.start(folder, *arguments, **options), folder, code)

    def refusal(self, folder, *arguments, code=2, **options):
        """Return the one line that a wrong command of train.py prints."""
        printed = self.train(folder, *arguments, code=code, **options)
        lines = [line for line in printed.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and "Traceback" not in printed, printed
        return lines[0]

    def finish(self, process, folder, code=0):
        """Wait for a command that was started in a folder, and return what it printed."""
        found = self.wait(process)
        printed = (folder / "output").read_bytes()[self._begins.pop(process) :].decode()
        assert found == code, printed
        return printed

    def _ask(self, request):
        print(json.dumps(request), file=self._server.stdin, flush=True)
        return json.loads(self._server.stdout.readline())


@functools.cache
def shared():
    """Return the `Forks` of this process, begun when it is first asked for."""
    forks = Forks()
    atexit.register(forks.close)
    return forks


def _serve():
    import torch
    import torch._dynamo  # which optimisers load

    import train  # noqa: F401
    from lib.engine import experiment, recorder  # noqa: F401  what a training would import later, here once
    from lib.task import image_pose, lifting, reprojection  # noqa: F401

    recorder._load_mlflow()
    torch.set_num_threads(1)  # no pool of threads, which a fork would lack
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = {"code": os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])}
        elif not (process := os.fork()):
            _become(**request)
        else:
            answer = {"process": process}
        print(json.dumps(answer), flush=True)


def _become(start, cwd, output, variables, at):
    """Be the command, and end as it does."""
    code = 1
    try:
        os.setpgid(0, 0)
        os.chdir(cwd)
        os.environ.update(variables)
        for number, file in ((0, os.devnull), (1, output), (2, output)):
            flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND
            opened = os.open(file, flags, 0o644)
            os.dup2(opened, number)
            os.close(opened)
        if at:
            _signal_at(*at)
        module, *arguments = start
        sys.argv = [module, *arguments]
        from lib.cli import run

        run(importlib.import_module(module).main)
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _signal_at(function, number, signal):
    module, _, path = function.partition(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    original, calls = getattr(owner, name), iter(range(1, sys.maxsize))

    @functools.wraps(original)
    def counted(*arguments, **keywords):
        if next(calls) == number:
            os.kill(os.getpid(), signal)
        return original(*arguments, **keywords)

    setattr(owner, name, counted)


if __name__ == "__main__":
    _serve()
