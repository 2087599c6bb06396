"""The real server, in a process of its own."""

import signal

import httpx
from forked import palam_command

CPU = ("--device", "cpu", "--dtype", "fp32")


class ServerProcess:
    """`palam serve` or `palam demo`; the first line that it prints tells the address."""

    def __init__(self, *arguments, **environment):
        self.process = palam_command(*arguments, environment=environment)
        self.line = self.process.stdout.readline()
        assert "http://" in self.line, self.process.communicate()[1]
        self.address = self.line.partition("http://")[2].split()[0].rstrip("/")

    def url(self, path):
        return f"http://{self.address}{path}"

    def metric(self, name, **options):
        lines = httpx.get(self.url("/metrics"), timeout=30, **options).text.splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))

    def end(self):
        """Tell it to end; returns the exit code and what it has written as errors."""
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=120)
        return self.process.returncode, errors

    def kill(self):
        """End it at once, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
