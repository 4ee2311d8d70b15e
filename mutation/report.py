"""The figures and the list in docs/mutants.md, between the lines that mark them."""

from __future__ import annotations

from collections import Counter

from .equivalents import EQUIVALENTS
from .trees import GROUPS, ROOT, mutants

PAGE = ROOT / "docs" / "mutants.md"


def figures() -> str:
    """A table with a row for each module."""
    rows = ["| module | mutants | killed | time limit | change nothing | survived | not tried |"]
    rows.append("|---|---:|---:|---:|---:|---:|---:|")
    listed = {mutant for found in EQUIVALENTS.values() for mutant in found}
    total: Counter[str] = Counter()
    for name, group in GROUPS.items():
        for module in group.modules:
            counts: Counter[str] = Counter()
            for mutant in mutants(name, [module]):
                outcome = mutant.outcome
                if mutant.survived:
                    outcome = "listed" if mutant.change() in listed else "survived"
                counts[outcome] += 1
            rows.append(_row(f"`{group.folder}/{module}.py`", counts))
            total += counts
    return "\n".join([*rows, _row("together", total)])


def _row(name: str, counts: Counter[str]) -> str:
    columns = ("killed", "timeout", "listed", "survived", "not tried")
    numbers = [sum(counts.values()), *(counts[column] for column in columns)]
    return " | ".join([f"| {name}", *(str(number) for number in numbers)]) + " |"


def equivalents() -> str:
    """The list of mutants that change nothing, by reason."""
    lines = []
    for reason, found in EQUIVALENTS.items():
        lines.append(f"{reason}\n")
        for mutant in found:
            lines.append(f"- `{mutant.function}`:")
            lines.append("  ```diff")
            lines.extend(f"  -{line}" for line in mutant.gone.splitlines())
            lines.extend(f"  +{line}" for line in mutant.instead.splitlines())
            lines.append("  ```")
        lines.append("")
    return "\n".join(lines).rstrip()


def insert(page: str, name: str, text: str) -> str:
    """The page with a text between its marks."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, _, rest = page.partition(begin)
    return f"{before}{begin}\n{text}\n\n{end}{rest.partition(end)[2]}"


def write_list() -> None:
    """Write the list to the page."""
    page = PAGE.read_text("utf-8")
    PAGE.write_text(insert(page, "equivalents", equivalents()), "utf-8")


def write_figures() -> None:
    """Write the figures and the list to the page."""
    write_list()
    PAGE.write_text(insert(PAGE.read_text("utf-8"), "figures", figures()), "utf-8")
