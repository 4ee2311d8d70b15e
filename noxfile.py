"""Everything that a contributor runs, by name: ``nox -l`` lists it, ``nox`` runs the default.

The default is what has to pass before a change lands: lint, typing, the
documentation, wheel and sdist, tests on each Python that is installed, coverage of the core, and
the tests on a real Kafka (which needs Java 17 and Maven; there it fails, it never skips).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
# Python versions that are not installed are left out, also in CI.
nox.options.error_on_missing_interpreters = False
nox.options.sessions = [
    *("lint", "typing", "docs", "package", "tests", "proofs", "coverage", "kafka"),
]

PYPROJECT = nox.project.load_toml("pyproject.toml")
PARALLEL = ("-n", "auto", "--dist", "worksteal")
PROOFS = ("tests/cancellation", "tests/simulation", "tests/model")
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]


def install(session: nox.Session, *groups: str, package: bool = True) -> None:
    """Install dependency groups in locked versions, and the package as a built wheel."""
    wanted = nox.project.dependency_groups(PYPROJECT, *groups)
    session.install("-c", "constraints.txt", *wanted, *(["."] if package else []))
    if package:
        # A wheel of the same version may be installed already; this one is new.
        session.install("-c", "constraints.txt", "--no-deps", "--force-reinstall", ".")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests that need no broker, against the built wheel; the long ones are in proofs."""
    install(session, "test")
    rest = [f"--ignore={folder}" for folder in PROOFS]
    session.run("pytest", "-m", "not kafka", *PARALLEL, *rest, *session.posargs)


@nox.session
def proofs(session: nox.Session) -> None:
    """Cancel at every step, simulate by seed, search the model: minutes, on one Python."""
    install(session, "test")
    session.run("pytest", *PARALLEL, *PROOFS, *session.posargs)


@nox.session
def kafka(session: nox.Session) -> None:
    """Run the conformance suite and the end-to-end tests on a real Kafka."""
    install(session, "test")
    # A file goes to one process, each of which has a cluster of its own.
    session.run("pytest", "-m", "kafka", "-n", "2", "--dist", "loadfile", *session.posargs)


@nox.session
def simulate(session: nox.Session) -> None:
    """Simulate the library: ``-- --seeds 10000``, ``--minutes 60``, ``--seed 17`` for one again."""
    install(session)
    # The wheel and not what lies here (from Python 3.11 on).
    safe = {"PYTHONSAFEPATH": "1"}
    session.run("python", "-m", "trio_consumer.testing", *session.posargs, env=safe)


@nox.session(python="3.12")
def fuzz(session: nox.Session) -> None:
    """Feed the library bad bytes and nonsense, a hundred times as many examples as the tests."""
    install(session, "test")
    session.install("atheris>=3.0")
    session.run(
        *("pytest", *PARALLEL, "tests/fuzz", *session.posargs), env={"HYPOTHESIS_PROFILE": "long"}
    )
    limits = ("-max_total_time=600", "-max_len=400")
    session.run("python", "-m", "tests.fuzz.coverage_guided", *limits)


@nox.session
def mutants(session: nox.Session) -> None:
    """Plant errors one at a time, an hour: ``-- core ledger fanout``; see docs/mutants.md."""
    install(session, "mutation", package=False)
    # The mutated tree stands for the package; only what it needs is installed.
    session.install("-c", "constraints.txt", *PYPROJECT["project"]["dependencies"])
    session.run("python", "-m", "mutation", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Hold the branch coverage of ``_core`` at 100 %."""
    install(session, "test")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", "-q", "tests/core", *session.posargs)
    session.run(
        "coverage",
        "report",
        "--include=*/trio_consumer/_core/*",
        "--fail-under=100",
        "--precision=2",
    )


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format; ``nox -s lint -- --fix`` mends what can be mended."""
    install(session, "lint", package=False)
    fix = "--fix" in session.posargs
    session.run("ruff", "check", *(["--fix"] if fix else []), ".")
    session.run("ruff", "format", *([] if fix else ["--check"]), ".")


@nox.session
def typing(session: nox.Session) -> None:
    """Check types with mypy --strict and pyright."""
    install(session, "typing")
    session.run("mypy")
    session.run("mypy", "--strict", "examples")
    python = ("--pythonpath", f"{session.virtualenv.location}/bin/python")
    session.run("pyright", *python)
    # Each public name has a type that is written down, so that checkers agree on it.
    session.run("pyright", *python, "--verifytypes", "trio_consumer", "--ignoreexternal")


@nox.session(python="3.12")
def docs(session: nox.Session) -> None:
    """Build the documentation into ``.nox/docs/html``; a broken link or name is an error."""
    install(session, "docs")
    out = f"{session.virtualenv.location}/html"
    # All of it each time: what is kept from the last build warns no more.
    session.run("sphinx-build", "-n", "-W", "-q", "-E", "-c", "docs", ".", out, *session.posargs)


@nox.session(python="3.12")
def package(session: nox.Session) -> None:
    """Build wheel and sdist, check both, try the wheel alone: ``-- 3.10 3.13`` on those Pythons."""
    install(session, "package", package=False)
    out = Path(session.create_tmp()) / "package"
    shutil.rmtree(out, ignore_errors=True)
    # The first one makes the sdist, and the wheel out of it; the second one a wheel of the tree.
    session.run("python", "-m", "build", "--installer=uv", "--outdir", f"{out}/dist", silent=True)
    session.run(
        *("python", "-m", "build", "--installer=uv", "--wheel", "--outdir", f"{out}/tree"),
        silent=True,
    )
    sdist, wheel = sorted((out / "dist").iterdir(), key=lambda path: path.suffix == ".whl")
    if (out / "tree" / wheel.name).read_bytes() != wheel.read_bytes():
        session.error("the sdist makes another wheel than the tree does")
    session.run("twine", "check", "--strict", str(sdist), str(wheel))
    session.run("check-wheel-contents", str(wheel))
    version = wheel.name.split("-")[1]
    for python in session.posargs or ["3.12"]:
        venv = out / f"venv-{python}"
        session.run("uv", "venv", "-q", "--no-python-downloads", "--python", python, str(venv))
        interpreter = str(venv / "bin" / "python")
        session.run(
            *("uv", "pip", "install", "-q", "--python", interpreter),
            *("-c", "constraints.txt", str(wheel)),
        )
        session.run(interpreter, "-I", "tests/package/installed.py", version, external=True)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure on a real Kafka beside the peers, as ratios (``-- --only throughput``)."""
    install(session, "bench")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(python="3.12")
def faust(session: nox.Session) -> None:
    """Put Faust's consumer and this one through the same schedules."""
    constraints = "comparison/constraints.txt"
    wanted = nox.project.dependency_groups(PYPROJECT, "faust")
    session.install("-c", constraints, *wanted, ".")
    session.install("-c", constraints, "--no-deps", "--force-reinstall", ".")
    # As `python -m comparison`, but with the wheel and not with what lies here.
    start = (
        "import runpy, sys; sys.path.append('.'); runpy.run_module('comparison', None, '__main__')"
    )
    session.run("python", "-P", "-c", start, *session.posargs)


@nox.session
def chaos(session: nox.Session) -> None:
    """Kill nodes and members, spoil the network, and see that nothing is lost: docs/chaos.md."""
    install(session, "test")
    session.run("python", "-m", "chaos", *session.posargs)


@nox.session
def lock(session: nox.Session) -> None:
    """Write constraints.txt anew, the versions that development and CI use, and Faust's."""
    session.install("uv")
    pip_compile = ("uv", "pip", "compile", "--upgrade", "--quiet", "--no-header", "--no-annotate")
    session.run(
        *(*pip_compile, "--universal", "--python-version", "3.10"),
        *("--group", "dev", "--group", "bench", "--group", "docs", "--group", "mutation"),
        *("--group", "package"),
        *("pyproject.toml", "--output-file", "constraints.txt"),
    )
    session.run(
        *(*pip_compile, "--universal", "--python-version", "3.12", "--group", "faust"),
        *("pyproject.toml", "--output-file", "comparison/constraints.txt"),
    )
