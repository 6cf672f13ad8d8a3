"""A small synchronous client: JSON in, JSON out, over connections that are used again."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import yaml

from redserve.errors import Unavailable
from tools.kubernetes.async_api import MERGE_PATCH, ApiError

if TYPE_CHECKING:
    from pathlib import Path

_IDLE_S: Final = 10.0


class ApiClient:
    """Talks to the API server of a kubeconfig that has certificates in files.

    Safe for threads: a connection is one call's at a time.

    Args:
        kubeconfig: As `write_kubeconfig` writes it.
        timeout_s: Of each request.
    """

    def __init__(self, kubeconfig: Path, *, timeout_s: float = 30.0) -> None:
        content = yaml.safe_load(kubeconfig.read_text())
        cluster = content["clusters"][0]["cluster"]
        user = content["users"][0]["user"]
        self._server = urlsplit(cluster["server"])
        self._timeout_s = timeout_s
        self._ssl: ssl.SSLContext | None = None
        if self._server.scheme == "https":
            self._ssl = ssl.create_default_context(cafile=cluster["certificate-authority"])
            if "client-certificate" in user:
                self._ssl.load_cert_chain(user["client-certificate"], user["client-key"])
        self._idle: list[tuple[http.client.HTTPConnection, float]] = []
        """Open connections and when they were last used; the last one is the freshest."""

    def get(self, path: str) -> Any:
        """Read an object or a list.

        Raises:
            ApiError: The API server refused.
            Unavailable: The API server does not answer.
        """
        return self.request("GET", path)

    def post(self, path: str, body: Any) -> Any:
        """Create an object; raises as `get`."""
        return self.request("POST", path, body)

    def patch(self, path: str, body: Any, *, content_type: str = MERGE_PATCH) -> Any:
        """Change an object, by a merge patch unless another type is named; raises as `get`."""
        return self.request("PATCH", path, body, content_type=content_type)

    def delete(self, path: str, body: Any = None) -> Any:
        """Delete an object; raises as `get`."""
        return self.request("DELETE", path, body)

    def exists(self, path: str) -> bool:
        """Whether there is such an object; raises as `get` for everything but 404."""
        try:
            self.get(path)
        except ApiError as error:
            if error.status == http.client.NOT_FOUND:
                return False
            raise
        return True

    def request(
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json"
    ) -> Any:
        """One request; its answer as data, or as text where it is not JSON. Raises as `get`."""
        payload = None if body is None else json.dumps(body)
        headers = {"Accept": "application/json", "Content-Type": content_type}
        connection = self._take()
        try:
            connection.request(method, path, payload, headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Unavailable(f"{method} {path}: {error!r}") from error
        self._idle.append((connection, time.monotonic()))
        is_json = "json" in (response.getheader("Content-Type") or "")
        answer: Any = json.loads(content) if is_json and content else content.decode()
        if response.status >= http.client.BAD_REQUEST:
            message = answer.get("message", "") if isinstance(answer, dict) else answer
            raise ApiError(response.status, message)
        return answer

    def close(self) -> None:
        """Close what is open; the next request opens another connection."""
        while self._idle:
            self._idle.pop()[0].close()

    def _take(self) -> http.client.HTTPConnection:
        while self._idle:
            connection, used_at = self._idle.pop()
            if time.monotonic() - used_at < _IDLE_S:
                return connection
            connection.close()  # the server may be about to do the same, between two words of ours
        host, port = self._server.hostname or "", self._server.port
        if self._ssl is None:
            return http.client.HTTPConnection(host, port, timeout=self._timeout_s)
        return http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=self._ssl)
