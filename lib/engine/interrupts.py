"""Requests to stop: a training finishes its step and saves before it ends."""

import signal
import threading

SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])]


class StopRequest:
    """Within `with`, Ctrl-C, SIGTERM and SIGUSR1 (batch systems send it before the time is up) are only noted.

    A second Ctrl-C interrupts at once; a launcher's SIGTERM after it does not.
    """

    def __init__(self):
        self.requested = False
        self._before = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *error):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self):
        """Raise KeyboardInterrupt if a stop was asked for."""
        if self.requested:
            raise KeyboardInterrupt

    def _note(self, number, frame):
        if number == signal.SIGINT:
            self.check()
        self.requested = True
