"""Objects of S3 and of stores that speak its language, through links that are signed here."""

from __future__ import annotations

from typing import Any

_LINK_SECONDS = 3600


def signed_link(url: str) -> str:
    """An ``https://`` (or ``http://``) link to read ``s3://bucket/key`` with, valid for an hour.

    s3fs finds credentials, region and endpoint as everywhere else: ``AWS_*`` variables, ``~/.aws``, the machine's role,
    or fsspec's own settings. Signing sends nothing; the link is then fetched like any other, with the same time-outs.

    Raises:
        ModuleNotFoundError: s3fs is not installed.
        PermissionError: no credentials were found.
    """
    try:
        import fsspec
        import s3fs  # noqa: F401
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{url}: reading from s3:// needs s3fs; install it with: pip install 'hicmae[remote]'"
        ) from error
    options: dict[str, Any] = {"config_kwargs": {"signature_version": "s3v4"}}
    try:
        link: str = fsspec.filesystem("s3", **options).sign(url, expiration=_LINK_SECONDS)
    except BotoCoreError as error:
        raise PermissionError(
            f"{url}: no usable credentials ({error}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, "
            """or FSSPEC_S3='{"anon": true}' for a public bucket"""
        ) from error
    return link
