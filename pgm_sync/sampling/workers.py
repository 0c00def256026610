"""Functions in threads of their own, of which one runs at a time: while its caller waits for it."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue
from typing import Any, NamedTuple

import torch

from .hook import DEVICES


class Modes(NamedTuple):
    """What torch keeps per thread, and a function in another thread would otherwise run without."""

    grad: bool
    inference: bool
    autocast: list[tuple[str, torch.dtype]]
    autocast_cache: bool
    device: torch.device
    stream: Any  # of CUDA, with its device; None without

    @classmethod
    def current(cls) -> Modes:
        """Those of the calling thread."""
        return cls(
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            [(d, torch.get_autocast_dtype(d)) for d in DEVICES if torch.is_autocast_enabled(d)],
            torch.is_autocast_cache_enabled(),
            torch.get_default_device(),
            torch.cuda.current_stream() if torch.cuda.is_initialized() else None,
        )

    @contextmanager
    def entered(self) -> Iterator[None]:
        with ExitStack() as stack:
            if self.stream is not None:
                stack.enter_context(torch.cuda.stream(self.stream))
            if self.device != torch.get_default_device():
                stack.enter_context(self.device)
            if self.inference:
                stack.enter_context(torch.inference_mode())
            else:
                stack.enter_context(torch.set_grad_enabled(self.grad))
            for device, dtype in self.autocast:
                stack.enter_context(torch.autocast(device, dtype, cache_enabled=self.autocast_cache))
            yield


class Worker:
    """One function in a thread, which stands still wherever it calls `park`, until `advance` lets it go on.

    After `advance`, it stands at a `request`, has ended with a `result`, or has failed with an `error`. Context
    variables and torch's modes are those of the thread that made the worker.
    """

    def __init__(self, name: str, function: Callable[[], Any]):
        self.request: Any = None
        self.result: Any = None
        self.error: BaseException | None = None
        self.ended = False
        self._function, self._modes = function, Modes.current()
        self._in: SimpleQueue[Any] = SimpleQueue()
        self._out: SimpleQueue[None] = SimpleQueue()
        self._stopping = False
        run = contextvars.copy_context().run
        # A daemon: should a function not return after an interrupt, the process still can.
        self._thread = threading.Thread(target=run, args=(self._run,), name=f"pgm_sync {name}", daemon=True)

    def advance(self, answer: Any = None) -> None:
        """Let the function run until it parks again or ends; `answer` is what its `park` returns."""
        self.request = None
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._in.put(answer)
        self._out.get()

    def park(self, request: Any) -> Any:
        """Called by the function: hand `request` to the caller, stand still, return the answer."""
        if self._stopping:
            raise _Stopped
        self.request = request
        self._out.put(None)
        answer = self._in.get()
        if self._stopping:
            raise _Stopped
        return answer

    @property
    def here(self) -> bool:
        """Whether this is called from the function's own thread."""
        return threading.current_thread() is self._thread

    def stop(self) -> None:
        """End the function where it stands, or at its next `park`; what it raises then is dropped."""
        self._stopping = True
        self._in.put(None)

    def wait(self) -> None:
        """Until the function has ended."""
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            with self._modes.entered():
                self.result = self._function()
        except _Stopped:
            pass
        except BaseException as error:  # it surfaces in the caller's thread
            self.error = error
        self.ended = True
        self._out.put(None)


class _Stopped(BaseException):
    """Unwinds a function that is not wanted any more; no Exception, so that functions let it through."""
