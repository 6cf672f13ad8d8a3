"""Pictures by http(s), within the policy."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx

from redserve.errors import InvalidArgument, PolicyViolation
from redserve_router.media.addresses import checked_addresses, system_resolver

if TYPE_CHECKING:
    from redserve_router.media.addresses import Resolver
    from redserve_router.media.policy import MediaPolicy

MAX_REDIRECTS = 3
_DEFAULT_PORTS = {"http": 80, "https": 443}


class PictureFetcher:
    """Fetches pictures; owns its HTTP client until `close`."""

    def __init__(self, policy: MediaPolicy, *, resolver: Resolver = system_resolver) -> None:
        self._policy = policy
        self._resolver = resolver
        self._client: httpx.AsyncClient | None = None

    async def fetch(self, url: str, field: str) -> bytes:
        """The body behind an address.

        Raises:
            PolicyViolation: Fetching is off, the host is not allowed, an address is private, there
                are too many redirects, or the body is too large.
            InvalidArgument: The address is malformed, unreachable, too slow, or does not answer
                with 200.
        """
        policy = self._policy
        if not policy.url_fetch:
            raise PolicyViolation(
                "images by http(s) address are off here: send the image itself "
                "(bytes or a data: URL)",
                field=field,
            )
        try:
            async with asyncio.timeout(policy.url_timeout_s):
                return await self._follow(url, field)
        except TimeoutError as error:
            raise InvalidArgument(
                f"fetching {url!r} took longer than {policy.url_timeout_s:g} s", field=field
            ) from error
        except httpx.HTTPError as error:
            raise InvalidArgument(f"{url!r} cannot be fetched: {error!r}", field=field) from error

    async def close(self) -> None:
        """Close what is open."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _follow(self, url: str, field: str) -> bytes:
        target = self._checked_url(url, None, field)
        for _ in range(MAX_REDIRECTS + 1):
            body, location = await self._get(target, field)
            if location is None:
                return body
            target = self._checked_url(location, target, field)
        raise PolicyViolation(f"{url!r} redirects more than {MAX_REDIRECTS} times", field=field)

    def _checked_url(self, text: str, base: httpx.URL | None, field: str) -> httpx.URL:
        try:
            url = httpx.URL(text) if base is None else base.join(text)
        except (httpx.InvalidURL, ValueError, UnicodeError) as error:
            raise InvalidArgument(f"{text!r} is no URL: {error}", field=field) from error
        if url.scheme not in _DEFAULT_PORTS or not url.host:
            raise InvalidArgument(f"{text!r} must begin with http:// or https://", field=field)
        if url.userinfo:
            raise PolicyViolation("the URL must not carry a user or password", field=field)
        if base is not None and base.scheme == "https" and url.scheme == "http":
            raise PolicyViolation("a redirect from https to http is not followed", field=field)
        allowed = self._policy.url_allowed_hosts
        if allowed and url.host.lower() not in allowed:
            raise PolicyViolation(
                f"host {url.host!r} is not allowed: use one of {', '.join(allowed)}", field=field
            )
        return url

    async def _get(self, url: httpx.URL, field: str) -> tuple[bytes, str | None]:
        """One hop: the body, or the address that it redirects to."""
        addresses = await checked_addresses(
            url.host,
            url.port or _DEFAULT_PORTS[url.scheme],
            allow_private=self._policy.url_allow_private,
            resolver=self._resolver,
            field=field,
        )
        request = self._open_client().build_request(
            "GET",
            # To the address that was checked; the name stays in the Host header and in TLS, where
            # the certificate is verified against it.
            url.copy_with(host=addresses[0]),
            headers={"Host": url.netloc.decode("ascii"), "Accept": "image/*"},
            extensions={"sni_hostname": url.host},
        )
        response = await self._open_client().send(request, stream=True)
        try:
            if response.has_redirect_location:
                return b"", response.headers["location"]
            return await self._read(response, url, field), None
        finally:
            await response.aclose()

    async def _read(self, response: httpx.Response, url: httpx.URL, field: str) -> bytes:
        if response.status_code != httpx.codes.OK:
            raise InvalidArgument(
                f"{str(url)!r} answers {response.status_code} instead of 200", field=field
            )
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            # Compressed bodies could grow without bound; pictures are compressed already.
            raise PolicyViolation(
                f"{str(url)!r} answers with a compressed body, which is not unpacked", field=field
            )
        limit = self._policy.max_image_bytes
        declared = response.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > limit:
            raise _too_large(url, limit, field)
        body = bytearray()
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > limit:
                raise _too_large(url, limit, field)
        return bytes(body)

    def _open_client(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(
                follow_redirects=False,
                trust_env=False,  # a proxy would resolve the name again, unchecked
                headers={"Accept-Encoding": "identity", "User-Agent": "redserve"},
                # Connections are pooled by address here: one that was verified for a host must
                # never serve another host on the same address.
                limits=httpx.Limits(max_connections=64, max_keepalive_connections=0),
                timeout=self._policy.url_timeout_s,
            )
        return self._client


def _too_large(url: httpx.URL, limit: int, field: str) -> PolicyViolation:
    return PolicyViolation(f"{str(url)!r} has more than {limit} bytes", field=field)
