"""Where shards may come from: an allow-list of URL schemes, and names joined to URLs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

SCHEMES = ("http", "https", "s3", "file")
# one letter and a colon is a drive of Windows, not a scheme
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether this names something by URL; a URL of another kind than ``SCHEMES`` is an error.

    Raises:
        ValueError: a chained URL (``::``), ``pipe:``, or any scheme that is not allowed.
    """
    if not isinstance(path, str):
        text = os.fspath(path)
        if re.match(r"(https?|s3|file):/", text):
            raise ValueError(f"{text!r} is a URL that became a path and lost a slash; give it as text, not as a Path")
        return False
    match = _SCHEME.match(path)
    if match is None and "::" not in path:
        return False
    if match is not None and match[1] not in SCHEMES and Path(path).exists():
        return False  # a folder whose name holds a colon
    check_url(path)
    return True


def check_url(url: str) -> None:
    """``ValueError`` for what is not a plain URL of one of the ``SCHEMES``; it names those."""
    allowed = ", ".join(f"{scheme}://" for scheme in SCHEMES)
    if "::" in url:
        raise ValueError(f"{shown(url)!r}: chained URLs ('::') are not read; allowed are folders and {allowed}")
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES:
        raise ValueError(f"{shown(url)!r}: URLs of this kind are not read; allowed are folders and {allowed}")
    if any(ord(letter) < 32 or ord(letter) == 127 or (letter == " " and scheme != "s3") for letter in url):
        raise ValueError(f"{shown(url)!r} holds spaces or control characters; write them as %20 and so on")
    if scheme in ("http", "https") and not url.isascii():
        raise ValueError(
            f"{shown(url)!r} holds letters that a URL cannot; write them with % signs, as browsers copy "
            "it (in a host, as xn--...)"
        )
    host, _, path = rest.partition("/")
    if scheme == "file" and (host not in ("", "localhost") or not path):
        raise ValueError(f"{shown(url)!r}: a file URL has three slashes and an absolute path, file:///data/shards")
    if scheme in ("http", "https"):
        try:
            _ = urlsplit(url).port
        except ValueError as error:
            raise ValueError(f"{shown(url)!r} names no host and port that can be ({error}); check them") from None
    if scheme != "file" and not host:
        raise ValueError(f"{shown(url)!r} names no {'bucket' if scheme == 's3' else 'host'}; write {scheme}://NAME/...")


def join_url(url: str, name: str) -> str:
    """The URL of ``name`` within the folder ``url``; a query (an access token) is kept."""
    base, question, query = url.partition("?")
    last = name if url.startswith("s3:") else quote(name)  # keys of S3 are taken as they are written
    return f"{base.rstrip('/')}/{last}{question}{query}"


def shown(url: str) -> str:
    """The URL for messages and logs: without passwords and without its query, which may hold a token."""
    base = url.partition("?")[0]
    scheme, separator, rest = base.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


def local_path(url: str) -> Path:
    """The path that a ``file://`` URL names."""
    return Path(unquote(urlsplit(url).path))
