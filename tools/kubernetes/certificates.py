"""A certificate authority for one control plane, by the openssl command."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Final

import yaml

from redserve.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_DAYS: Final = "30"
_EC_KEY: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class CertificateAuthority:
    """Issues certificates into one folder, which it owns.

    Args:
        folder: Made when missing; holds private keys.

    Raises:
        ConfigError: There is no openssl, or it failed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        usage = "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"
        self._openssl(
            *("req", "-x509", *_EC_KEY, "-keyout", self.key, "-out", self.certificate),
            *("-days", _DAYS, "-subj", "/CN=redserve-test-ca", "-addext", usage),
        )

    @property
    def certificate(self) -> Path:
        """The authority's own certificate."""
        return self._folder / "ca.crt"

    @property
    def key(self) -> Path:
        """The authority's own key."""
        return self._folder / "ca.key"

    def client(self, name: str, user: str, groups: tuple[str, ...] = ()) -> tuple[Path, Path]:
        """Certificate and key of a user, in files called `name`."""
        subject = "".join(f"/O={_escaped(group)}" for group in groups) + f"/CN={_escaped(user)}"
        return self._issue(name, subject, "extendedKeyUsage=clientAuth")

    def server(self, name: str, alternative_names: tuple[str, ...]) -> tuple[Path, Path]:
        """Certificate and key of a server, such as for `DNS:localhost` and `IP:127.0.0.1`."""
        names = "subjectAltName=" + ",".join(alternative_names)
        return self._issue(name, f"/CN={name}", f"extendedKeyUsage=serverAuth,clientAuth\n{names}")

    def rsa_key(self, name: str) -> tuple[Path, Path]:
        """A key that signs tokens: private and public half."""
        private, public = self._folder / f"{name}.key", self._folder / f"{name}.pub"
        self._openssl("genrsa", "-out", private, "2048")
        self._openssl("rsa", "-in", private, "-pubout", "-out", public)
        return private, public

    def _issue(self, name: str, subject: str, extensions: str) -> tuple[Path, Path]:
        key, request, certificate, options = (
            self._folder / f"{name}.{suffix}" for suffix in ("key", "csr", "crt", "ext")
        )
        options.write_text(f"keyUsage=digitalSignature\nbasicConstraints=CA:FALSE\n{extensions}\n")
        self._openssl("req", "-new", *_EC_KEY, "-keyout", key, "-out", request, "-subj", subject)
        self._openssl(
            *("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key),
            *("-CAcreateserial", "-days", _DAYS, "-out", certificate, "-extfile", options),
        )
        request.unlink()
        options.unlink()
        return certificate, key

    def _openssl(self, *arguments: str | Path) -> None:
        program = shutil.which("openssl")
        if program is None:
            raise ConfigError("the control plane's certificates need the `openssl` command")
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ConfigError(f"openssl {arguments[0]}: {done.stderr.strip()}")


def write_kubeconfig(
    path: Path, server: str, authority: Path | None, client: tuple[Path, Path] | None
) -> Path:
    """Write the file by which clients find a server and prove who they are; returns its path."""
    cluster: dict[str, str] = {"server": server}
    if authority is not None:
        cluster["certificate-authority"] = str(authority)
    user: dict[str, str] = {}
    if client is not None:
        user = {"client-certificate": str(client[0]), "client-key": str(client[1])}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": cluster}],
        "users": [{"name": "user", "user": user}],
        "contexts": [{"name": "local", "context": {"cluster": "local", "user": "user"}}],
        "current-context": "local",
    }
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    path.chmod(0o600)
    return path


def _escaped(text: str) -> str:
    # In openssl's subjects a slash begins the next attribute.
    return text.replace("\\", "\\\\").replace("/", "\\/").replace("+", "\\+")
