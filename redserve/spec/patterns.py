"""Shapes of names, for the models and for the CustomResourceDefinitions alike.

The expressions mean the same to Rust (pydantic), Go (the API server) and CEL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_LABEL: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DOTTED: Final = rf"{_LABEL}(\.{_LABEL})*"

SERVICE_NAME: Final = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
"""RFC 1035 label: what a Kubernetes Service may be called."""
LABEL_NAME: Final = rf"^{_LABEL}$"
"""RFC 1123 label: namespaces, names inside of pods."""
OBJECT_NAME: Final = rf"^{_DOTTED}$"
"""RFC 1123 subdomain: what most objects may be called."""
QUALIFIED_NAME: Final = rf"^({_DOTTED}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?$"
"""Keys of labels and annotations, resources: a name, or domain/name."""
ANNOTATION_NAME: Final = rf"(?i){QUALIFIED_NAME}"
"""As QUALIFIED_NAME; the domain may have upper-case letters."""
LABEL_VALUE: Final = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
DATA_KEY: Final = r"^[-._a-zA-Z0-9]+$"
"""Keys of Secrets and ConfigMaps."""
ENV_NAME: Final = r"^[ -<>-~]+$"
"""Printable ASCII without '='."""
NO_NUL: Final = r"^[^\x00]*$"
_HOST: Final = r"([-A-Za-z0-9_.]+|\[[0-9A-Fa-f:.]+\])"
_PORT: Final = (
    r"([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
)
HTTP_ORIGIN: Final = rf"^https?://{_HOST}(:{_PORT})?/?$"
"""A server and nothing behind it."""

WORDS: Final[Mapping[str, str]] = {
    SERVICE_NAME: "must be lower-case letters, digits and '-', a letter first, no '-' at the end",
    LABEL_NAME: "must be lower-case letters, digits and '-', with no '-' at either end",
    OBJECT_NAME: "must be lower-case letters, digits, '-' and '.', as Kubernetes names objects",
    QUALIFIED_NAME: "must be a name or domain/name, as in Kubernetes",
    ANNOTATION_NAME: "must be a name or domain/name, as in Kubernetes",
    LABEL_VALUE: "must be letters, digits, '-', '_' and '.', with a letter or digit at both ends",
    DATA_KEY: "must be letters, digits, '-', '_' and '.'",
    ENV_NAME: "must be printable ASCII without '='",
    NO_NUL: "must not contain U+0000",
    HTTP_ORIGIN: "must be http://host:port or https://host:port",
}
"""Pattern -> what it asks for."""
