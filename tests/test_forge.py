"""What lies in .github calls sessions of nox that exist, and asks for what can be answered."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FORGE = ROOT / ".github"
NOXFILE = (ROOT / "noxfile.py").read_text("utf-8")
SESSIONS = set(re.findall(r"^@nox\.session.*\ndef (\w+)", NOXFILE, re.MULTILINE))


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def pythons() -> list[str]:
    """The versions that the tests run on."""
    (found,) = re.findall(r"^PYTHONS = \[(.*)\]$", NOXFILE, re.MULTILINE)
    return re.findall(r'"([\d.]+)"', found)


def defaults() -> set[str]:
    """The sessions of a plain ``nox``."""
    (found,) = re.findall(
        r"^nox\.options\.sessions = \[(.*?)\]$", NOXFILE, re.DOTALL | re.MULTILINE
    )
    return set(re.findall(r'"(\w+)"', found))


def commands(workflow: Any) -> list[str]:
    """What each job runs, once for each value of its matrix."""
    found = []
    for job in workflow["jobs"].values():
        matrix = job.get("strategy", {}).get("matrix", {})
        for values in itertools.product(*matrix.values()):
            chosen = dict(zip(matrix, values, strict=True))
            for step in job["steps"]:
                text = step.get("run", "")
                for name, value in chosen.items():
                    text = text.replace(f"${{{{ matrix.{name} }}}}", value)
                found.append(text)
    return found


def called(workflow: str) -> list[str]:
    """The sessions that a workflow runs, with the Python that they name."""
    lines = commands(load(FORGE / "workflows" / workflow))
    return [name for line in lines for name in re.findall(r"^nox .*?-s (\S+)", line)]


@pytest.mark.parametrize("workflow", ["ci.yml", "weekly.yml"])
def test_workflow_calls_sessions_that_exist(workflow: str) -> None:
    """No job does by hand what a session does, and none calls what is not there."""
    names = called(workflow)
    assert names
    for name in names:
        session, _, python = name.partition("-")
        assert session in SESSIONS, name
        assert not python or python in pythons(), name
    for line in commands(load(FORGE / "workflows" / workflow)):
        assert line in ("", "pip install nox uv") or line.startswith("nox "), line


def test_every_change_runs_what_nox_runs() -> None:
    """All default sessions, the tests on each Python that is supported."""
    names = called("ci.yml")
    assert {name.partition("-")[0] for name in names} == defaults()
    assert [name for name in names if name.startswith("tests-")] == [
        f"tests-{p}" for p in pythons()
    ]


def test_package_is_tried_on_each_python() -> None:
    """The wheel that is kept has been installed on all of them."""
    lines = commands(load(FORGE / "workflows" / "ci.yml"))
    assert f"nox -s package -- {' '.join(pythons())}" in lines


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_form_is_one_that_the_forge_takes(name: str) -> None:
    """Known kinds of fields, a label and an id for each, no id twice."""
    form = load(FORGE / "ISSUE_TEMPLATE" / f"{name}.yml")
    assert {"name", "description", "body"} <= set(form)
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids))
    for field in form["body"]:
        assert field["type"] in ("textarea", "input", "dropdown")
        assert field["attributes"]["label"]
        assert field["type"] != "dropdown" or field["attributes"]["options"]


def test_bug_form_asks_for_what_each_transport_needs() -> None:
    """Version and transport are required; every transport can be chosen."""
    from trio_consumer.transports import EXAMPLES

    fields = {field["id"]: field for field in load(FORGE / "ISSUE_TEMPLATE" / "bug.yml")["body"]}
    for name in ("version", "transport"):
        assert fields[name]["validations"]["required"]
    for scheme in re.findall(r"\w+://", str(EXAMPLES)):
        assert scheme in fields["transport"]["attributes"]["options"], scheme


def test_links_of_the_forge_lead_somewhere() -> None:
    """Those that are relative."""
    for page in FORGE.glob("*.md"):
        for target in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")):
            assert "://" in target or (FORGE / target).exists(), target


def test_contributing_names_every_session() -> None:
    """Who wants to change something finds what there is to run."""
    named = set(re.findall(r"nox -s (\w+)", (ROOT / "CONTRIBUTING.md").read_text("utf-8")))
    assert named == SESSIONS
