"""The commands that look after a dataset: verify, repair."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import options as opt
from .render import print_facts, print_json, row_progress, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zipml_ooc.stored_pieces import Damage

_SHOWN = 20


def verify(dataset: opt.DatasetPath, threads: opt.Threads = None, json: opt.Json = False) -> None:
    """Check that a compressed dataset is whole.

    Reads every chunk, of targets and weights too, and compares checksums, counts and metadata. Ends
    with 0 if the dataset is whole, and with 1 and the list of what is damaged if it is not.

    \b
    Examples:
      zipml verify houses.zarr
      zipml verify s3://bucket/houses.zarr --threads 16
      zipml verify houses.zarr --json
    """
    from zipml_ooc import DataError
    from zipml_ooc import verify as run

    began = time.perf_counter()
    with row_progress(json_wanted=json) as progress:
        found = run(dataset, threads=threads, progress=progress)
    seconds = time.perf_counter() - began
    if json:
        damages = [_facts(damage) for damage in found.damages]
        print_json(asdict(found) | {"whole": found.whole, "damages": damages, "seconds": seconds})
    else:
        checked = ", ".join(f"{count:,} of {name}" for name, count in found.chunks.items())
        lines = [
            ("dataset", found.path),
            ("chunks", f"{checked}; {_count(found.objects, 'object')}"),
            ("read", f"{size(found.read_bytes)} in {seconds:.1f} s"),
            ("result", "whole" if found.whole else _count(len(found.damages), "damage")),
        ]
        if found.unchecked:
            lines.append(("no checksums", ", ".join(found.unchecked)))
        print_facts(lines)
        _print_damages(found.damages)
    if not found.whole:
        folder = found.path if Path(found.path).is_dir() else "FOLDER"
        first = "" if folder == found.path else "copy it into a folder, and "
        raise DataError(
            f"{found.path} is damaged: {first}zipml repair {folder} --source SOURCE makes what is "
            "damaged again"
        )


def repair(
    dataset: opt.DatasetFolder,
    source: opt.RepairSources = None,
    format_name: opt.FormatName = None,
    x_name: opt.XName = "X",
    y_name: opt.YName = "y",
    header: opt.Header = True,
    delimiter: opt.Delimiter = None,
    threads: opt.Threads = None,
    json: opt.Json = False,
) -> None:
    """Make the damaged chunks of a dataset again from its source.

    They get the bytes that they had; whole ones are not touched. Nothing is changed if the source
    turns out to be another one. Damaged indexes of shards and metadata of arrays need no source.

    \b
    Examples:
      zipml repair houses.zarr --source houses.csv.gz
      zipml repair all.zarr --source 'part-*.parquet'
      zipml repair train.zarr --source train.npz --y-name labels
    """
    from zipml_ooc import repair as run

    began = time.perf_counter()
    options = opt.source_options(
        target=None,
        format_name=format_name,
        x_name=x_name,
        y_name=y_name,
        header=header,
        delimiter=delimiter,
    )
    with row_progress(json_wanted=json) as progress:
        done = run(
            dataset, source or (), source_options=options, threads=threads, progress=progress
        )
    seconds = time.perf_counter() - began
    if json:
        repaired = [_facts(damage) for damage in done.repaired]
        print_json(asdict(done) | {"repaired": repaired, "seconds": seconds})
        return
    result = f"{_count(len(done.repaired), 'damage')} repaired"
    if done.chunks:
        result += f", {_count(done.chunks, 'chunk')} made again from the source"
    print_facts(
        [
            ("dataset", done.path),
            ("result", result if done.repaired else "whole, nothing to repair"),
            ("time", f"{seconds:.1f} s"),
        ]
    )
    _print_damages(done.repaired)


def _facts(damage: Damage) -> dict[str, Any]:
    return asdict(damage) | {"place": damage.place}


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _print_damages(damages: Sequence[Damage]) -> None:
    """The first few of them, with the reason."""
    if not damages:
        return
    print()
    print_facts([(d.place, d.reason) for d in damages[:_SHOWN]])
    if len(damages) > _SHOWN:
        print(f"and {len(damages) - _SHOWN:,} more (--json shows all)")
