"""Saying once what is wrong, however often it is met."""

import logging


class Complaint:
    """A line in the log for as long as one thing is wrong, instead of one at every try."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said = ""

    def say(self, message: str) -> None:
        """Logs the message unless it was the last one said."""
        if message != self._said:
            self._said = message
            self._log.warning("%s", message)

    def over(self) -> None:
        """What was wrong is over: when it comes back, it is said again."""
        self._said = ""
