"""Which process something was written by, so that another one can tell later whether it still runs."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any


def own_mark() -> dict[str, Any]:
    """Of this process, for JSON: machine, number, and start in clock ticks since the machine's (numbers are reused)."""
    return {"machine": socket.gethostname(), "process": os.getpid(), "ticks": _started(os.getpid())}


def is_running(mark: Any) -> bool | None:
    """Whether that process still runs; ``None`` where this machine cannot tell, as for one of another machine."""
    if not isinstance(mark, dict) or mark.get("machine") != socket.gethostname() or mark.get("ticks") is None:
        return None
    return bool(_started(mark.get("process")) == mark["ticks"])


def _started(process: Any) -> int | None:
    try:
        text = Path(f"/proc/{process}/stat").read_text("utf-8", errors="replace")
    except OSError:  # no such process, or no Linux
        return None
    state, *fields = text.rpartition(")")[2].split()  # the program's name before it may hold anything
    return None if state in "ZX" else int(fields[18])
