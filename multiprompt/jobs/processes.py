"""Child processes in which a worker's jobs are done: each keeps the base model loaded, and dies with its worker.

Parent and child talk in lines of JSON over the child's standard input and output.
"""

from __future__ import annotations

import errno
import json
import logging
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from multiprompt import errors
from multiprompt.errors import ConfigError, JobError, SupersededError, UnavailableError
from multiprompt.records import Claim, Progress

_log = logging.getLogger("multiprompt.worker")

# Seconds between two looks of a parent whether the job is still its own, and seconds that a child may take to stop.
_LOOK_SECONDS = 0.5
_STOP_SECONDS = 3.0
_ENDING_SECONDS = 5.0
# A full disk, and no memory, processes or open files left.
_SCARCE = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE)


@dataclass(frozen=True)
class WorkerOptions:
    """The settings that a child process works with."""

    catalog: str
    base_model: str | None
    actor: str
    device: str | None
    hub_metrics: bool


class Processes:
    """The child processes of a worker; as many as jobs that ran at one time."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._idle: list[_Child] = []
        self._busy: set[_Child] = set()
        self._lock = threading.Lock()
        self._closed = False
        # The number of processes that died for lack of memory, by job.
        self._starved: dict[str, int] = {}

    def do(
        self,
        claim: Claim,
        kind: str,
        task: str | None,
        *,
        is_mine: Callable[[Claim], bool],
        on_progress: Progress,
        on_kept: Callable[[], None],
    ) -> None:
        """Have a child do a job. Raises what stopped it: JobError, SupersededError or UnavailableError."""
        child = self._take()
        killed = _out_of_memory_kills()
        try:
            child.send({"do": [asdict(claim), kind, task, self._starved.get(claim.job, 0)]})
            self._follow(child, claim, is_mine, on_progress, on_kept)
            self._starved.pop(claim.job, None)
        except UnavailableError:
            if not child.lives and _out_of_memory_kills() > killed:
                self._starved[claim.job] = self._starved.get(claim.job, 0) + 1
            raise
        finally:
            self._put_back(child)

    def close(self) -> None:
        """Kill the children; what they did for jobs is as if they had died."""
        with self._lock:
            self._closed = True
            children = [*self._idle, *self._busy]
        for child in children:
            child.kill()

    @property
    def pids(self) -> list[int]:
        with self._lock:
            return [child.pid for child in (*self._idle, *self._busy)]

    def _follow(
        self,
        child: _Child,
        claim: Claim,
        is_mine: Callable[[Claim], bool],
        on_progress: Progress,
        on_kept: Callable[[], None],
    ) -> None:
        looked = time.monotonic()
        while True:
            message = child.receive(_LOOK_SECONDS)
            if time.monotonic() - looked >= _LOOK_SECONDS:
                looked = time.monotonic()
                if not is_mine(claim):
                    child.let_go()
                    raise SupersededError(f"job {claim.job} was cancelled or taken over.")
            match message:
                case {"progress": [str(what), int(done), int(total)]}:
                    on_progress(what, done, total)
                case {"kept": _}:
                    on_kept()
                case {"done": _}:
                    return
                case {"error": str(kind), "text": str(text)}:
                    raise _error(kind, text)

    def _take(self) -> _Child:
        with self._lock:
            if self._closed:
                raise UnavailableError("the worker is stopping.")
            child = self._idle.pop() if self._idle else _Child(self._options)
            self._busy.add(child)
            return child

    def _put_back(self, child: _Child) -> None:
        with self._lock:
            self._busy.discard(child)
            if child.is_free and not self._closed:
                self._idle.append(child)
                return
        child.kill()


class _Child:
    """One child process, from its worker's side."""

    def __init__(self, options: WorkerOptions) -> None:
        command = [sys.executable, "-m", "multiprompt.jobs.child"]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, errors="replace"
            )
        except OSError as error:
            raise UnavailableError(f"no process can be started for the job: {error.strerror or error}.") from error
        self._messages: queue.Queue[Mapping[str, Any] | None] = queue.Queue()
        self._busy = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.send({"options": asdict(options)})

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    @property
    def is_free(self) -> bool:
        """Whether it lives and does nothing."""
        return self.lives and not self._busy

    def send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._busy = self._busy or "do" in message
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise self._died() from None

    def receive(self, timeout: float) -> Mapping[str, Any] | None:
        """The next message, None when there is none in time. Raises UnavailableError when the child has died."""
        try:
            message = self._messages.get(timeout=timeout)
        except queue.Empty:
            return None
        if message is None:
            raise self._died()
        self._busy = self._busy and not {"done", "error"} & set(message)
        return message

    def let_go(self) -> None:
        """Ask the child to let go of its job; one that does not is busy still when this ends."""
        deadline = time.monotonic() + _STOP_SECONDS
        with suppress(UnavailableError):
            self.send({"stop": True})
            while self._busy and time.monotonic() < deadline:
                self.receive(_LOOK_SECONDS)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(_ENDING_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was not flushed to a dead child
                    pipe.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                message = json.loads(line)
            except ValueError:
                continue
            self._messages.put(message if isinstance(message, dict) else {})
        self._messages.put(None)

    def _died(self) -> UnavailableError:
        code = self._process.wait()
        how = f"of signal {-code}" if code < 0 else f"with status {code}"
        return UnavailableError(f"the process that did the job died {how}.")


def _out_of_memory_kills() -> int:
    """The number of processes that the kernel killed for lack of memory since it started; 0 where it does not tell."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _error(kind: str, text: str) -> Exception:
    """The worker's error for an error of a child."""
    raised = getattr(errors, kind, None)
    if isinstance(raised, type) and issubclass(raised, SupersededError | UnavailableError):
        return raised(text)
    return JobError(text if kind == "JobError" else f"{kind}: {text}")


def visible_devices(device: str, given: str | None) -> str:
    """The value of CUDA_VISIBLE_DEVICES for "cpu", "cuda" or "cuda:N", which counts within the devices `given`.

    Raises ConfigError when there is no such device among them.
    """
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return ""
    if given is None:
        return number or "0"
    devices = [name.strip() for name in given.split(",") if name.strip()]
    if int(number or 0) >= len(devices):
        raise ConfigError(f"`device={device!r}`, but CUDA_VISIBLE_DEVICES is {given!r} and has {len(devices)} devices.")
    return devices[int(number or 0)]
