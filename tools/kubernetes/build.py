"""`python -m tools.kubernetes.build [PROGRAM...]`: builds what is missing.

Names of programs, or `cluster` (the default), `node`, `observability` and `all`. From empty caches
`cluster` takes about twelve minutes on two cores and needs a Go proxy; afterwards nothing is
fetched or built again.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from redserve.errors import ConfigError, RedServeError
from tools.kubernetes import definitions
from tools.kubernetes.programs import (
    CLUSTER,
    MODULE,
    NODE,
    OBSERVABILITY,
    PROGRAMS,
    Module,
    cache_folder,
    find,
    locate,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

GROUPS: Final = {
    "cluster": CLUSTER,
    "node": NODE,
    "observability": OBSERVABILITY,
    "all": tuple(PROGRAMS),
}


def build(names: Iterable[str]) -> dict[str, Path]:
    """Build the programs that are missing; returns where each of them lies.

    Raises:
        ConfigError: Go is missing or too old, or a build failed.
    """
    wanted = tuple(dict.fromkeys(names))
    for module in MODULE.values():
        ours = [name for name in wanted if PROGRAMS[name].module == module.name]
        if all(find(name) for name in ours):
            continue
        with _one_at_a_time():
            # Another process may have built them while this one waited.
            if missing := [name for name in ours if find(name) is None]:
                _build_module(module, missing)
    return {name: locate(name) for name in wanted}


def _build_module(module: Module, names: Sequence[str]) -> None:
    go = go_command(module.go_version)
    began = time.monotonic()
    _say(f"building {', '.join(names)} {module.version} (minutes from empty caches)")
    module.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=module.cache, prefix=".building-") as folder:
        for name in names:
            command = [go, "build", *module.build_flags, "-ldflags", module.link_flags]
            command += ["-o", f"{folder}/{name}", PROGRAMS[name].package]
            done = subprocess.run(command, cwd=module.folder, env=_environment(), check=False)
            if done.returncode != 0:
                raise ConfigError(f"could not build {name}; Go says why above")
            if module.name == definitions.MODULE_NAME:
                definitions.generate(Path(folder) / name, _environment())
            # Whoever finds a program in the cache finds all of it.
            (Path(folder) / name).replace(module.cache / name)
            _say(f"  {name} after {time.monotonic() - began:.0f} s")


def go_command(needed: tuple[int, int]) -> str:
    """The Go compiler.

    Raises:
        ConfigError: There is none, or it is older than `needed`.
    """
    text = f"Go {needed[0]}.{needed[1]} or newer builds the control plane"
    go = shutil.which("go")
    if go is None:
        raise ConfigError(
            f"{text} and no `go` is on PATH; install it, or name a folder with "
            f"{', '.join(CLUSTER)} in KUBEBUILDER_ASSETS"
        )
    said = subprocess.run(
        [go, "version"], env=_environment(), capture_output=True, text=True, check=False
    ).stdout
    found = re.search(r"go(\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < needed:
        raise ConfigError(f"{text}, but {go} is {said.strip() or 'broken'}; install a newer one")
    return go


def _environment() -> dict[str, str]:
    # The Go that is there, never one that Go fetches; static programs, which run in any container.
    return {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, and print where each program lies."""
    parser = argparse.ArgumentParser(prog="python -m tools.kubernetes.build", description=__doc__)
    choices = [*GROUPS, *PROGRAMS]
    parser.add_argument("programs", nargs="*", metavar="PROGRAM", help=", ".join(choices))
    given = parser.parse_args(arguments).programs or ["cluster"]
    if unknown := [name for name in given if name not in choices]:
        parser.error(f"unknown: {', '.join(unknown)}; choose from {', '.join(choices)}")
    try:
        built = build(name for group in given for name in GROUPS.get(group, (group,)))
    except RedServeError as error:
        _say(f"error: {error}")
        return 2
    for name, path in built.items():
        print(f"{name}\t{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
