"""What an HTTP client sees: why a connection failed, how long a server asks to wait, which host is this machine."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address


def cause(error: BaseException) -> str:
    """The innermost reason: urllib3 wraps 'Connection refused' four times, each time with the whole URL."""
    inner: BaseException = error
    while isinstance(deeper := getattr(inner, "reason", None) or (inner.args and inner.args[-1]), BaseException):
        inner = deeper
    text = re.sub(r"<[^>]*>:? ?|HTTPS?Connection(Pool)?\([^)]*\):? ?", "", str(inner))
    return text or type(inner).__name__


def retry_after(text: str) -> float | None:
    """Seconds that a ``Retry-After`` header asks for (RFC 9110, 10.2.3: seconds or a date); None where it says none."""
    text = text.strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max((when - datetime.now(UTC)).total_seconds(), 0.0)


def is_loopback(host: str) -> bool:
    """True for ``localhost`` and the addresses of this machine itself (127.0.0.0/8, ::1); no name is looked up."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
