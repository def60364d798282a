"""The page of a reproduction, drawn from its results and from nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from closeup.reproduce.result import Result, Row, Stamp, Table

ABSENT = "-"


def page(result: Result) -> str:
    """Return the results as Markdown: every table, what follows from it, its pictures, and what made it."""
    parts = [
        f"# {result.title}",
        f"*Paper:* {result.paper}",
        "Ours / paper's, where the paper's figure is known to us. Ours are on the embedded world with tiny, theirs on "
        "the paper's data with its models: compare orders and gaps, not heights. "
        f"This page is drawn from `results/{result.name}.json`.",
        *(_section(table) for table in result.tables),
    ]
    missing = [key for key in result.order if key not in {table.key for table in result.tables}]
    if missing:
        command = f"closeup reproduce {result.name.replace('-quick', ' --quick')} --train"
        parts.append(f"Not measured yet: {', '.join(missing)} (`{command}`).")
    return "\n\n".join(parts) + "\n"


def cells(table: Table) -> tuple[list[str], list[list[str]]]:
    """Return the columns and lines of a table: one line per name, one column per metric."""
    metrics = list(dict.fromkeys(row.metric for row in table.rows))
    names = list(dict.fromkeys(row.name for row in table.rows))
    found = {(row.name, row.metric): row for row in table.rows}
    lines = [[name, *(_cell(found.get((name, metric))) for metric in metrics)] for name in names]
    return ["", *metrics], lines


def _section(table: Table) -> str:
    columns, lines = cells(table)
    parts = [f"## {table.title}", table.about, _markdown(columns, lines)]
    parts += ["\n".join(f"- {finding}" for finding in table.findings)] if table.findings else []
    parts += [f"![{picture.caption}]({picture.file})\n\n*{picture.caption}*" for picture in table.pictures]
    sources = dict.fromkeys(row.paper.source for row in table.rows if row.paper is not None)
    parts += [f"Paper's figures: {'; '.join(sources)}."] if sources else []
    return "\n\n".join([*parts, _made_by(table.stamp)])


def _markdown(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in columns[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in [columns, rule, *lines])


def _cell(row: Row | None) -> str:
    if row is None:
        return ABSENT
    here = f"{row.mean:.{row.digits}f}"
    if row.spread is not None:
        here += f" ± {row.spread:.{row.digits}f}"
    return here if row.paper is None else f"{here} / {row.paper.value:g}"


def _made_by(stamp: Stamp) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in stamp.versions.items())
    commit = f"commit {stamp.commit}, " if stamp.commit else ""
    return f"<sub>`{stamp.command}`, {stamp.date}, {commit}{versions}, {stamp.machine}.</sub>"
