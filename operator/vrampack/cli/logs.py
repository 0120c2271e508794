"""Logging of the long-running commands: lines for people, JSON for collectors."""

import json
import logging
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

_QUIET: Final = (
    "aiohttp",
    "asyncio",
    "httpcore",
    "httpx",
    "httpx2",
    "huggingface_hub",
    "kopf",
    "kubernetes",
    "urllib3",
)
"""Libraries that say at INFO what the operator does all the time."""


class LogLevel(StrEnum):
    """From which severity on."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How a record is written."""

    TEXT = "text"
    JSON = "json"


def configure(*, level: LogLevel, form: LogFormat) -> None:
    """Sends all records of ``level`` and above to stderr; those of libraries from WARNING on, unless at debug."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if form is LogFormat.JSON else _text())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level is not LogLevel.DEBUG:
        for name in _QUIET:
            logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


def _text() -> logging.Formatter:
    return logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")


class _Json(logging.Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)
