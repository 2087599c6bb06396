"""Processes that start at once: forked from one in which the libraries are imported.

Importing torch and transformers takes seconds. A test that has to kill a process, or to talk to it,
need not wait for that each time.
"""

import atexit
import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from multiprocessing.reduction import DupFd
from pathlib import Path

IMPORTED = (
    "peft",
    "sklearn.linear_model",
    "transformers.models.bert.modeling_bert",
    "transformers.models.llama.modeling_llama",
    "transformers.trainer",
    "palam.bench.estimate",
    "palam.bench.report",
    "palam.bench.runner",
    "palam.cli.classify",
    "palam.cli.evaluate",
    "palam.cli.generate",
    "palam.cli.main",
    "palam.inference.layer_page",
    "palam.scale.reader",
    "palam.serving.server",
    "palam.training.align_run",
)
"""What commands import, once for all processes."""
START_METHOD = "forkserver" if sys.platform == "linux" else "spawn"
context = multiprocessing.get_context(START_METHOD)
if START_METHOD == "forkserver":
    context.set_forkserver_preload(list(IMPORTED))


class ForkedProcess:
    """A function in a process of its own; in use like `subprocess.Popen` with `text=True`.

    Args:
        function: what it calls; a function of a module.
        arguments: of the function.
        environment: the variables that it has.

    Attributes:
        stdin, stdout, stderr: its ends of pipes.
    """

    def __init__(self, function, *arguments, environment=None):
        inner, outer = [], []
        for writes in (False, True, True):
            read_end, write_end = os.pipe()
            inner.append(write_end if writes else read_end)
            outer.append(read_end if writes else write_end)
        self.stdin = os.fdopen(outer[0], "w", encoding="utf-8")
        self.stdout = os.fdopen(outer[1], encoding="utf-8")
        self.stderr = os.fdopen(outer[2], encoding="utf-8")
        variables = dict(os.environ if environment is None else environment)
        streams = DeferredStreams(inner)
        self._process = context.Process(
            target=_run, args=(function, arguments, variables, str(Path.cwd()), streams)
        )
        self._process.start()
        for end in inner:
            os.close(end)

    @property
    def pid(self):
        return self._process.pid

    @property
    def returncode(self):
        return self._process.exitcode

    def poll(self):
        return self._process.exitcode

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a forked process", timeout)
        return self._process.exitcode

    def communicate(self, timeout=None):
        """Close its input, wait for its end, and give what it has written."""
        with contextlib.suppress(BrokenPipeError):
            self.stdin.close()
        written = ["", ""]

        def read(place, stream):
            written[place] = stream.read()

        readers = [
            threading.Thread(target=read, args=pair, daemon=True)
            for pair in enumerate((self.stdout, self.stderr))
        ]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join(timeout)
        return tuple(written)

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


class DeferredStreams:
    """File descriptors that another process gets when it starts."""

    def __init__(self, descriptors):
        self.descriptors = descriptors

    def __reduce__(self):
        return _received, ([DupFd(descriptor) for descriptor in self.descriptors],)


def _received(duplicates):
    return [duplicate.detach() for duplicate in duplicates]


def _run(function, arguments, variables, folder, descriptors):
    """In the new process: take its variables, folder and streams, and call the function."""
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    encoding = {"encoding": "utf-8", "closefd": False}
    sys.stdin = open(0, **encoding)  # noqa: SIM115  they stay open
    sys.stdout = open(1, "w", **encoding)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, **encoding)  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        function(*arguments)
    finally:
        # A forked process leaves these out.
        atexit._run_exitfuncs()


def palam_command(*arguments, environment=None):
    """`palam` in a process of its own, as in the foreground of a shell."""
    variables = os.environ | (environment or {})
    return ForkedProcess(_palam, [str(each) for each in arguments], environment=variables)


def _palam(arguments):
    import torch

    from palam.cli.main import main

    torch.set_num_threads(1)
    main(arguments)
