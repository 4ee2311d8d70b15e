"""The layers of DESIGN.md, walked: imports point down, and privacy stays where it is declared."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import trio_consumer

ROOT = Path(trio_consumer.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

# What each room may import of the package, by the beginning of the module's name.
# The longest matching room counts.
ALLOWED = {
    "trio_consumer._version": [],
    "trio_consumer._types": [],
    "trio_consumer._errors": ["_types"],
    "trio_consumer._core": ["_types", "_errors", "_core"],
    "trio_consumer.transports": ["_types", "_errors", "transports"],
    "trio_consumer.transports.base": ["_types", "_errors"],
    "trio_consumer.transports.addresses": ["_errors"],
    "trio_consumer.transports.record": [],
    "trio_consumer.transports.kafka": [
        "_types",
        "_errors",
        "transports.addresses",
        "transports.base",
        "transports.record",
        "transports.kafka",
    ],
    "trio_consumer.transports.confluent": [
        "_types",
        "_errors",
        "transports.addresses",
        "transports.base",
        "transports.record",
        "transports.confluent",
    ],
    "trio_consumer.transports.memory": [
        "_types",
        "_errors",
        "transports.base",
        "transports.memory",
    ],
    "trio_consumer._runtime": ["_types", "_errors", "_core", "transports.base", "_runtime"],
}
CLIENTS = {"kafka", "confluent_kafka"}
OUTSIDE = {
    "trio_consumer._types": {"trio", *CLIENTS},
    "trio_consumer._errors": {"trio", *CLIENTS},
    "trio_consumer._core": {"trio", "anyio", "outcome", "logging", "time", "threading", *CLIENTS},
    "trio_consumer._runtime": CLIENTS,
    "trio_consumer.transports.base": {"trio", *CLIENTS},
    "trio_consumer.transports.memory": CLIENTS,
    "trio_consumer.transports.kafka": {"confluent_kafka"},
    "trio_consumer.transports.confluent": {"kafka"},
}


def name_of(path: Path) -> str:
    """The dotted name of a module."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str, rooms: dict[str, object]) -> str | None:
    """The narrowest room that a module lies in, None for a face."""
    found = [room for room in rooms if module == room or module.startswith(room + ".")]
    return max(found, key=len, default=None)


def imports(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line, module and name of each import, absolute; the name is "" for a whole module."""
    module = name_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            for alias in node.names:
                yield node.lineno, base, alias.name


def named(path: Path) -> str:
    """A test id."""
    return name_of(path)


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_imports_point_down_only(path: Path) -> None:
    """No module imports a layer above its own, and the runtime of the transports only the seam."""
    module = name_of(path)
    room = room_of(module, dict(ALLOWED))
    if room is None:
        return  # a face may import anything below it
    for line, target, name in imports(path):
        if not (target == "trio_consumer" or target.startswith("trio_consumer.")):
            continue
        inside = f"{target}.{name}".removeprefix("trio_consumer").lstrip(".")
        if room == "trio_consumer._runtime" and (target, name) == (
            "trio_consumer.transports",
            "resolve",
        ):
            continue
        assert any(
            inside == allowed or inside.startswith(allowed + ".") for allowed in ALLOWED[room]
        ), f"{path}:{line}: {module} imports {target}.{name}"


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_layers_know_their_own_outside_packages_only(path: Path) -> None:
    """The core imports neither Trio nor a client nor a clock; only a transport knows a client."""
    module = name_of(path)
    room = room_of(module, dict(OUTSIDE))
    if room is None:
        return
    for line, target, _ in imports(path):
        assert target.partition(".")[0] not in OUTSIDE[room], (
            f"{path}:{line}: {module} imports {target}"
        )


KAFKA = sorted((ROOT / "transports" / "kafka").glob("*.py"))


def private_of(node: ast.Attribute) -> bool:
    """Whether a private attribute is taken of something that is not ours."""
    if not node.attr.startswith("_") or node.attr.startswith("__"):
        return False
    return not (isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"})


@pytest.mark.parametrize("path", KAFKA, ids=named)
def test_private_access_to_the_client_stands_in_one_package(path: Path) -> None:
    """Only what is in ``internals`` takes a private attribute of anything but ``self``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            assert not private_of(node), f"{path}:{node.lineno}: {ast.unparse(node)}"
        if (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in {"getattr", "setattr", "hasattr"}
            and isinstance(node.args[1], ast.Constant)
        ):
            name = str(node.args[1].value)
            assert not name.startswith("_"), f"{path}:{node.lineno}: {ast.unparse(node)}"
    for line, target, name in imports(path):
        if target.partition(".")[0] == "kafka":
            dotted = f"{target}.{name}".split(".")
            assert not any(part.startswith("_") for part in dotted), f"{path}:{line}: {dotted}"


def test_walk_sees_the_whole_package() -> None:
    """The walk would be worth nothing if it found no module, or a room were gone."""
    names = {name_of(path) for path in MODULES}
    assert set(ALLOWED) | set(OUTSIDE) <= names
    assert name_of(ROOT / "transports" / "kafka" / "internals" / "joins.py") in names
    assert any(room_of(name, dict(ALLOWED)) is None for name in names)
