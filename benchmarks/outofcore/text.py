"""The report for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..machine import about_machine, about_versions
from .runs import ENOUGH


def as_text(report: dict[str, Any]) -> str:
    """All parts that were measured."""
    lines = [about_machine(report["machine"])]
    if "epoch" in report:
        lines += ["", *_epoch(report["epoch"])]
    if "loading" in report:
        lines += ["", *_loading(report["loading"])]
    if "memory" in report:
        lines += ["", *_memory(report["memory"])]
    return "\n".join(lines)


def _epoch(part: dict[str, Any]) -> Iterator[str]:
    yield about_versions(part["versions"])
    for name in part["missing"]:
        yield f'without   {name}: pip install "zipml-ooc[bench]"'
    yield (
        f"data      {part['rows']:,} rows x {part['columns']} columns, "
        f"{4 * part['rows'] * part['columns'] / 1e6:.0f} MB as float32; zipml at {part['bits']} "
        f"bits x {part['samples']} samples on {part['threads']} threads"
    )
    yield f"runs      {part['repeats']} of {part['epochs']} epochs each, in turns; medians"
    yield ""
    yield (
        f"{'':34}{'ms/epoch':>10}{'Gvalues/s':>11}{'MB/epoch':>10}{f's to {ENOUGH:.0%}':>10}"
        f"{'at the end':>12}"
    )
    for way in part["ways"]:
        end = "" if way["excess"] is None else f"{way['excess']:.3%}"
        enough = way["seconds_to_enough"]
        yield (
            f"{way['name']:34}{1e3 * way['epoch_seconds']:>10.1f}"
            f"{way['values_per_second'] / 1e9:>11.3f}{way['bytes_per_epoch'] / 1e6:>10.1f}"
            f"{'' if enough is None else f'{enough:.3f}':>10}{end:>12}"
        )
    ours = [way for way in part["ways"] if way["name"].startswith("zipml")]
    others = [way for way in part["ways"] if not way["name"].startswith("zipml")]
    yield ""
    for way in ours:
        ratios = []
        for other in others:
            times = f"{way['values_per_second'] / other['values_per_second']:.1f}x"
            if way["seconds_to_enough"] and other["seconds_to_enough"]:
                sooner = other["seconds_to_enough"] / way["seconds_to_enough"]
                times += f" (to {ENOUGH:.0%}: {sooner:.1f}x)"
            ratios.append(f"{other['name']} {times}")
        yield f"{way['name']}: as fast an epoch as " + ", ".join(ratios)


def _loading(part: dict[str, Any]) -> Iterator[str]:
    yield (
        f"loading   {part['rows']:,} rows x {part['columns']} columns at {part['bits']} bits x "
        f"{part['samples']} samples, {part['chunks']} chunks in the page cache; medians of "
        f"{part['turns']} turns"
    )
    yield (
        f"{'':34}{'threads':>8}{'GB/s':>8}{'read()':>8}{'of it':>7}{'quartiles':>13}"
        f"{'calls':>8}{'of it':>7}"
    )
    for way in part["ways"]:
        low, high = way["ratio_quartiles"]
        yield (
            f"{way['name']:34}{way['threads']:>8}{way['bytes_per_second'] / 1e9:>8.2f}"
            f"{way['plain_bytes_per_second'] / 1e9:>8.2f}{way['ratio']:>7.2f}"
            f"{f'{low:.2f}-{high:.2f}':>13}"
            f"{way['calls_bytes_per_second'] / 1e9:>8.2f}{way['ratio_to_calls']:>7.2f}"
        )


def _memory(part: dict[str, Any]) -> Iterator[str]:
    yield (
        f"memory    {part['rows']:,} rows x {part['columns']} columns, "
        f"{part['float32_bytes'] / 1e9:.1f} GB as float32, {part['stored_bytes'] / 1e9:.2f} GB at "
        f"{part['bits']} bits x {part['samples']} samples"
    )
    yield (
        f"compress  {part['compress_seconds']:.0f} s with the making of the rows, "
        f"peak {part['compress_peak'] / 1e6:.0f} MB"
    )
    yield (
        f"train     {part['epochs']} epochs, {part['epoch_seconds']:.2f} s each, "
        f"peak {part['train_peak'] / 1e6:.0f} MB with --memory {part['budget']}, "
        f"loss {part['loss']:.6g}"
    )
