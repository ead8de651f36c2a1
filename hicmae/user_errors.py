"""Which errors a user caused: shown as one line, without a traceback."""

from __future__ import annotations

import traceback

from hicmae.data.fetch_error import FetchError

_OURS = ("hicmae", "pretrain", "finetune")


def explains_itself(error: BaseException) -> bool:
    """Whether ``error`` was raised by our own code to tell the user what to change.

    True for the kinds of error that bad input raises, if the frame that raised it is ours: the message then names
    file, value and remedy. A ``ValueError`` out of another library's depths keeps its traceback.
    """
    if not isinstance(error, (ValueError, FileNotFoundError, FileExistsError, PermissionError, FetchError)):
        return False
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and frames[-1][0].f_globals.get("__name__", "").split(".")[0] in _OURS
