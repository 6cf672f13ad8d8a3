"""What a pod is given to speak to the API server with."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from redserve_router.discovery.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class ServiceAccount:
    """The files of a pod's ServiceAccount. The kubelet renews them, so they are read every time.

    Args:
        folder: Where they are mounted.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def token(self) -> str:
        """The token as it is now.

        Raises:
            Problem: There is none.
        """
        token = self._read(self._folder / "token", lambda path: path.read_text().strip())
        if not token:
            raise Problem("credentials", f"the ServiceAccount token in {self._folder} is empty")
        return token

    def tls(self) -> ssl.SSLContext:
        """Trusts the cluster's certificate authority and nobody else.

        Raises:
            Problem: There is no such file, or nothing in it.
        """
        context = self._read(
            self._folder / "ca.crt", lambda path: ssl.create_default_context(cafile=str(path))
        )
        # Python 3.13 asks for extensions that certificate authorities of many clusters lack.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context

    def namespace(self) -> str | None:
        """The pod's own namespace; None when nobody says."""
        try:
            return (self._folder / "namespace").read_text().strip() or None
        except OSError:
            return None

    def _read(self, path: Path, read: Callable[[Path], T]) -> T:
        try:
            return read(path)
        except (OSError, ValueError) as error:
            raise Problem(
                "credentials",
                f"cannot use {path}: {error}; routers need a ServiceAccount whose token is mounted",
            ) from error
