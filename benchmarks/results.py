"""The tables of docs/results.md: pruned networks beside the small ones that could have been trained instead.

Finished runs of the specs that ``results/tables.toml`` lists are read from run folders into ``results/scores.json``,
which stays when run folders go; the tables in the page are written anew from it. What has not been run is listed with
its command, for the folder ``benchmarks``, where the specs are.

    cd benchmarks
    python results.py [--runs FOLDER] [--seeds 3]
"""

import argparse
import csv
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import mean, mode, stdev
from typing import Any

import toml
from attrs import asdict, frozen

from qprune.spec import Spec, read_spec
from qprune.tables import short

HERE = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "results.md"
SCORES = HERE / "scores.json"


@frozen
class Score:
    """What came of one run.

    Attributes:
        score: of the task's metric on the test images, from 0 to 1, or a distance.
        steps: of this run alone.
        minutes: of training, on two cores that did other things meanwhile.
        macs: of the network that is left.
        packed_bytes: of its weights at their bits.
        bit_operations: MACs times the bits of weights and values.
    """

    score: float
    steps: int
    minutes: float
    macs: int
    packed_bytes: int
    bit_operations: int


Scores = dict[str, dict[str, Score]]  # by spec, by seed


def main(arguments: list[str]) -> None:
    """Read the runs, write the page, and say what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run folders lie")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds each spec is to have")
    options = parser.parse_args(arguments)
    tables = toml.loads((HERE / "tables.toml").read_text())["table"]
    options.runs = options.runs.absolute()
    os.chdir(Path(__file__).parent)  # names of specs are paths below its folder specs, or below the package's
    specs = {name: read_spec(name) for table in tables for name in _specs(table)}
    scores = _read_scores()
    missing = [line for name in specs for line in _collect(scores, name, options)]
    _write_scores(scores)
    begun = [table for table in tables if all(any(scores[name] for name in part) for part in _parts(table))]
    blocks = [_block(table, specs, scores) for table in begun]
    PAGE.write_text(_replaced(PAGE.read_text(), "\n".join(blocks)))
    sys.stdout.write("\n".join(["Not run yet:", *missing] if missing else ["All has been run."]) + "\n")


def _specs(table: Mapping[str, Any]) -> list[str]:
    return [name for part in _parts(table) for name in part]


def _parts(table: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The dense one, and those that are compared with it."""
    return [table["dense"]], [row["spec"] for row in table["rows"]]


def _collect(scores: Scores, name: str, options: argparse.Namespace) -> Iterator[str]:
    """Take up the runs that there are; the commands of those that there are not."""
    known = scores.setdefault(name, {})
    for seed in range(options.seeds):
        folder = options.runs / (f"{name}@seed{seed}" if seed else name)
        if (folder / "report.json").is_file():
            _take_up(known, str(seed), _score(folder))
        if str(seed) not in known:
            yield f"qprune fit {name}" + (f" --seed {seed}" if seed else "")


def _take_up(known: dict[str, Score], key: str, score: Score) -> None:
    """Another processor rounds otherwise and ends elsewhere: a seed that is run again there counts once more."""
    while key in known and known[key].score != score.score:
        key += " again"
    known[key] = score


def _score(folder: Path) -> Score:
    report = json.loads((folder / "report.json").read_text())
    with (folder / "history.csv").open(newline="") as file:
        seconds = sum(float(row["seconds"]) for row in csv.DictReader(file))
    costs = report["costs"]
    return Score(
        score=round(report["scores"]["test"][report["monitor"]], 5),
        steps=report["step"],
        minutes=round(seconds / 60, 1),
        macs=costs["macs_kept"],
        packed_bytes=costs["packed_bytes"],
        bit_operations=costs["bit_operations"],
    )


def _read_scores() -> Scores:
    if not SCORES.is_file():
        return {}
    return {
        name: {seed: Score(**fields) for seed, fields in seeds.items()}
        for name, seeds in json.loads(SCORES.read_text()).items()
    }


def _write_scores(scores: Scores) -> None:
    plain = {name: {seed: asdict(score) for seed, score in sorted(seeds.items())} for name, seeds in scores.items()}
    SCORES.write_text(json.dumps(plain, indent=1, sort_keys=True) + "\n")


def _block(table: Mapping[str, Any], specs: Mapping[str, Spec], scores: Scores) -> str:
    dense = next(iter(scores[table["dense"]].values()))
    folder = mode(row["spec"].rpartition("/")[0] for row in table["rows"]) + "/"
    lines = [
        f"## {table['title']}",
        "",
        f"MACs and bit operations are shares of the dense network's; it has {short(dense.macs)} MACs. Specs without a",
        f"folder are in `{folder}`.",
        "",
        f"| network | MACs | bit operations | packed | steps | {table.get('test', 'test')} | runs | min. | spec |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    rows = [{"spec": table["dense"], "label": "dense"}, *table["rows"]]
    ran = [{**row, "file": row["spec"].removeprefix(folder)} for row in rows if scores[row["spec"]]]
    factor = table.get("factor", 100)
    for row in ran:
        steps = _steps(row["spec"], specs, scores, table.get("teachers_count", False))
        lines.append(_line(row, steps, scores[row["spec"]], dense, factor))
    return "\n".join([*lines, "", *([table["note"], ""] if "note" in table else [])])


def _steps(name: str, specs: Mapping[str, Spec], scores: Scores, teachers: bool) -> int:
    """Of a run and of all that it goes back to, each once."""
    return sum(next(iter(scores[each].values())).steps for each in _behind(name, specs, teachers))


def _behind(name: str, specs: Mapping[str, Spec], teachers: bool) -> set[str]:
    """A spec, those that it starts from, and its teachers where they count."""
    spec = specs[name]
    taught = {spec.train.teacher.run} if teachers and spec.train.teacher else set()
    before = [other for other, each in specs.items() if each.name in {spec.init} | taught]
    return {name}.union(*(_behind(other, specs, teachers) for other in before))


def _line(row: Mapping[str, Any], steps: int, seeds: Mapping[str, Score], dense: Score, factor: float) -> str:
    found = list(seeds.values())
    first, values = found[0], [factor * each.score for each in found]
    digits = 1 if factor == 100 else 2
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    cells = [
        row["label"],
        f"{100 * first.macs / dense.macs:.1f} %",
        f"{100 * first.bit_operations / dense.bit_operations:.3g} %",
        short(first.packed_bytes, "B"),
        f"{steps:,}",
        f"{mean(values):.{digits}f}{spread}",
        str(len(values)),
        f"{mean(each.minutes for each in found):.0f}",
        f"`{row['file']}`",
    ]
    return f"| {' | '.join(cells)} |"


def _replaced(page: str, tables: str) -> str:
    """The page with everything between its two marks written anew."""
    head, rest = page.split("<!-- tables -->\n")
    _, tail = rest.split("<!-- end of tables -->")
    return f"{head}<!-- tables -->\n\n{tables}\n<!-- end of tables -->{tail}"


if __name__ == "__main__":
    main(sys.argv[1:])
