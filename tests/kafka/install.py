"""Kafka's jars: fetched once by Maven into a cache, then only read.

The cache holds one folder of jars for each content of `pom.xml`. A folder is filled under a
temporary name and renamed when it is whole, so a folder with the final name is always complete:
an interrupted download is thrown away by the next call. A lock file lets processes call
`install` at the same time; the second one waits and finds the jars.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

KAFKA_VERSION = "4.3.1"
"""The version that `pom.xml` names; only the default cache folder is called after it."""

_POM = Path(__file__).with_name("pom.xml")
_CACHE_VARIABLE = "TRIO_CONSUMER_KAFKA_CACHE"
_MAVEN_TIMEOUT = 600.0  # arbitrary: 54 MB took 8 s on a good line


class KafkaUnavailable(RuntimeError):  # noqa: N818 - it names the state, as in the messages
    """Kafka cannot be installed or run on this machine; the message says what to do about it."""


def cache_folder() -> Path:
    """Return where the jars are kept; the folder may not exist yet.

    `$TRIO_CONSUMER_KAFKA_CACHE` if set, else `trio-consumer/kafka-<version>` below
    `$XDG_CACHE_HOME` or `~/.cache`.
    """
    chosen = os.environ.get(_CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    # The XDG specification: a relative path is invalid and to be ignored.
    xdg = Path(os.environ.get("XDG_CACHE_HOME") or "")
    base = xdg if xdg.is_absolute() else Path.home() / ".cache"
    return base / "trio-consumer" / f"kafka-{KAFKA_VERSION}"


def java() -> str:
    """Return the path of the `java` program: from `$JAVA_HOME`, else from `$PATH`.

    Raises:
        KafkaUnavailable: there is none.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home, "bin"))) if home else None
    found = found or shutil.which("java")
    if found is None:
        raise KafkaUnavailable(
            "Starting Kafka needs Java, and no `java` program was found in $JAVA_HOME/bin or on "
            "$PATH: install a Java runtime, version 17 or later."
        )
    return found


def install() -> Path:
    """Make sure that Kafka's jars are on this machine.

    Takes about 10 s the first time and next to nothing afterwards. Several processes may call it
    at once.

    Returns:
        The folder with the jars.

    Raises:
        KafkaUnavailable: Java or Maven is missing, or Maven failed; with the end of its output.
    """
    java()
    cache = cache_folder()
    libs = cache / f"libs-{hashlib.sha256(_POM.read_bytes()).hexdigest()[:12]}"
    if libs.is_dir():
        return libs
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KafkaUnavailable(
            f"Kafka's jars cannot be kept in {cache}: {error}. Name a folder that can be written "
            f"in ${_CACHE_VARIABLE}."
        ) from error
    with _locked(cache / "lock"):
        if not libs.is_dir():
            for leftover in cache.glob("part-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            part = Path(tempfile.mkdtemp(prefix="part-", dir=cache))
            try:
                _copy_dependencies(part)
                part.chmod(0o755)  # mkdtemp's 0700 would shut out others who share the cache
                part.rename(libs)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
    return libs


def java_command(
    class_name: str, *args: str, options: Sequence[str] = (), libs: Path | None = None
) -> list[str]:
    """Return the command line that runs a class from Kafka's jars.

    Args:
        class_name: the Java class, with its package.
        args: its arguments.
        options: options of the Java machine, for example `-Xmx256m`.
        libs: the folder of the jars; `install()` if None.
    """
    jars = f"{libs or install()}{os.sep}*"
    return [java(), *options, "-cp", jars, class_name, *args]


def java_tool(
    class_name: str,
    *args: str,
    options: Sequence[str] = ("-Xmx512m", "-XX:+UseSerialGC"),
    timeout: float = 600.0,
) -> str:
    """Run one of Kafka's own tools to its end.

    Args:
        class_name: for example `org.apache.kafka.tools.ConsumerPerformance`.
        args: the tool's arguments.
        options: options of the Java machine.
        timeout: seconds until the tool is killed.

    Returns:
        What the tool wrote to standard output. Its log goes to standard error and only matters
        when it fails.

    Raises:
        KafkaUnavailable: Kafka cannot be installed.
        RuntimeError: the tool failed; with the end of both outputs.
        subprocess.TimeoutExpired: the tool took longer than `timeout`.
    """
    options = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", *options)
    result = subprocess.run(
        java_command(class_name, *args, options=options),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )
    if result.returncode:
        raise RuntimeError(
            f"{class_name} {' '.join(args)} ended with exit status {result.returncode}:\n"
            f"{tail(result.stdout + result.stderr)}"
        )
    return result.stdout


def tail(text: str, lines: int = 40) -> str:
    """Return the last `lines` lines of a text."""
    return "\n".join(text.rstrip().splitlines()[-lines:])


def _copy_dependencies(target: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaUnavailable(
            "Kafka's jars are fetched by Maven, and no `mvn` program was found on $PATH: install "
            f"Maven 3.8 or later, or name a folder that is already filled in ${_CACHE_VARIABLE}."
        )
    command = [maven, "-q", "-B", "-f", str(_POM), "dependency:copy-dependencies"]
    command += [f"-DoutputDirectory={target}", "-DincludeScope=runtime"]
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_MAVEN_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise KafkaUnavailable(
            f"Maven had not fetched Kafka's jars after {_MAVEN_TIMEOUT:.0f} s: check that the "
            "network and the repository in Maven's settings answer, then try again."
        ) from error
    # Maven has been seen to succeed without copying anything when a plugin is overridden.
    if result.returncode or not any(target.glob("kafka_*.jar")):
        raise KafkaUnavailable(
            f"Maven could not fetch Kafka's jars (exit status {result.returncode}): check the "
            "network and the repository in Maven's settings, then try again. The end of its "
            f"output:\n{tail(result.stdout)}"
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock; the system lets it go if the process dies."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
