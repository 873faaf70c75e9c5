"""What TensorBoard shows: each trial's reports, by Ray Tune's own callback."""

from typing import Any

from ray.tune.logger import TBXLoggerCallback

from study.tune.cluster import Stops


class Scalars(TBXLoggerCallback):
    """TensorBoard's callback, which a signal does not interrupt.

    It hands events to a thread through a queue. An error that is raised within, by Ctrl-C, may leave the queue's lock
    taken, and the process would wait for it at its end, for ever.
    """

    def __init__(self, stops: Stops) -> None:
        """Write events; ``stops`` hold signals back meanwhile."""
        super().__init__()
        self._stops = stops

    def on_trial_start(self, *args: Any, **info: Any) -> None:
        """Begin the events of a trial."""
        with self._stops.held_back():
            super().on_trial_start(*args, **info)

    def on_trial_result(self, *args: Any, **info: Any) -> None:
        """Write a report."""
        with self._stops.held_back():
            super().on_trial_result(*args, **info)

    def on_trial_complete(self, *args: Any, **info: Any) -> None:
        """End the events of a trial."""
        with self._stops.held_back():
            super().on_trial_complete(*args, **info)

    def on_trial_error(self, *args: Any, **info: Any) -> None:
        """End the events of a trial that was lost."""
        with self._stops.held_back():
            super().on_trial_error(*args, **info)
