"""The server of the page: on this computer alone unless asked otherwise, silent towards everywhere else."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hicmae.inference.prediction_files import About
from hicmae.inference.predictor import Predictor

logger = logging.getLogger(__name__)

# The browser itself refuses what is not from this server, whatever the page's parts may try to fetch.
_POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; connect-src 'self' data: blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_WAITING = 16
"""Most files that wait for their turn."""
LOCAL = ("127.0.0.1", "localhost", "::1")


@contextmanager
def serving(
    predictor: Predictor, *, settings: About, host: str = LOCAL[0], port: int = 7860, max_mb: int = 500
) -> Iterator[str]:
    """Serve the page until the context ends; uploaded files are deleted then at the latest.

    Args:
        predictor: what works on the files.
        settings: goes into downloaded JSON, see ``PredictionJob.about``.
        host: the address to listen at.
        port: where; 0 takes a free one.
        max_mb: largest file that is taken.

    Yields:
        The page's address.

    Raises:
        ValueError: the port is taken, or the extra ``demo`` is not installed.
    """
    port = _free_port(host, port)
    if host not in LOCAL:
        logger.warning(
            "listening at %s: whoever reaches this computer can use the page, and the videos that are sent to it are "
            "not encrypted on the way; faces are personal data",
            host,
        )
    with (
        tempfile.TemporaryDirectory(prefix="hicmae-serve-", ignore_cleanup_errors=True) as folder,
        _told_gradio(folder),
    ):
        try:
            import gradio as gr
            from starlette.middleware import Middleware
        except ModuleNotFoundError as error:
            raise ValueError(
                f"{error.name} is not installed: the page needs the extra demo, pip install 'hicmae[demo]'"
            ) from error
        from hicmae.serve.look import CSS, FONTS, SCRIPT
        from hicmae.serve.page import Visits, build_page

        logging.getLogger("httpx").setLevel(logging.WARNING)  # gradio asks its own server whether it is up
        page = build_page(predictor, Visits(Path(folder)), settings=settings, max_mb=max_mb)
        try:
            page.queue(max_size=_WAITING)
            launch: dict[str, Any] = dict(
                server_name=f"[{host}]" if ":" in host else host,
                server_port=port,
                share=False,
                prevent_thread_lock=True,
                quiet=True,
                max_file_size=f"{max_mb}mb",
                ssr_mode=False,
                mcp_server=False,
                enable_monitoring=False,
                footer_links=[],
                theme=gr.themes.Soft(primary_hue="blue", font=FONTS, font_mono=("monospace",)),
                css=CSS,
                head=SCRIPT,
                app_kwargs={"middleware": [Middleware(_Policy)]},
            )
            _, address, _ = page.launch(**launch)
            yield address
        finally:
            page.close(verbose=False)


@contextmanager
def _told_gradio(folder: str) -> Iterator[None]:
    """What gradio reads from the environment, when it is imported and when a page is built."""
    told = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder, "HF_HUB_DISABLE_TELEMETRY": "1"}
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class _Policy:
    """Adds headers to every answer."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = {"content-security-policy": _POLICY, "referrer-policy": "no-referrer"}
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in added.items())]
            await send(message)

        await self._app(scope, receive, send_with_policy)


def _free_port(host: str, port: int) -> int:
    """The port, or a free one for 0."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ValueError(
                f"cannot listen at {host}:{port} ({error.strerror}); choose another --port, or 0 for any that is free"
            ) from error
        free: int = probe.getsockname()[1]
    return free
