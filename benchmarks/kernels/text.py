"""The report for people."""

from __future__ import annotations

from typing import Any

from .training import ARITHMETIC, BITS

Record = dict[str, Any]


def as_text(report: Record) -> str:
    """Everything that was measured."""
    machine = report["machine"]
    sizes = ", ".join(f"{name} {bytes_(size)}" for name, size in machine["caches"].items())
    lines = [
        f"machine   {machine['processor']}, {machine['cores']} cores, {sizes}; "
        f"{machine['system']}, Python {machine['python']}",
        f"SIMD      {machine['simd']} (available: {', '.join(machine['simd_levels'])})",
        f"versions  {', '.join(f'{name} {v}' for name, v in report['versions'].items())}",
        "method    one core, time of the process; medians of paired runs, in which both take turns",
    ]
    for part, show in (("training", training), ("codecs", codecs), ("imports", imports)):
        if part in report:
            lines += ["", *show(report[part])]
    return "\n".join(line.rstrip() for line in [*lines, "", f"took {report['seconds']:.0f} s"])


def training(part: Record) -> list[str]:
    """The tables of the training step."""
    lines = [
        "TRAINING STEP: a pass of SGD, squared loss, tiles in sequence, mini-batches of 256 rows",
        "where nothing else is said. Figures: times as fast as",
        "float32 rows, which is SGD row by row over a table of floats in the fastest of its forms.",
        "",
        *steps_table(part),
        "",
        *peers_table(part),
    ]
    for group, title in (
        ("levels", "Levels from a table (optimal levels), times as fast as float32 rows"),
        ("batch", "Size of the mini-batch, times as fast as float32 rows"),
        ("estimator", "Estimators, times as fast as naive at the same stored bits"),
        ("threads", "Two threads, each with its replica, times as fast as one thread"),
    ):
        chosen = [record for record in part["records"] if record["group"] == group]
        if chosen:
            lines += ["", title, *map(comparison, chosen)]
    if part["missing"]:
        lines += ["", "Left out:", *(f"  {line}" for line in part["missing"])]
    return lines


def steps_table(part: Record) -> list[str]:
    """Our step by width, arithmetic and stored bits."""
    found = {
        (r["columns"], r["arithmetic"], r["stored_bits"]): r
        for r in part["records"]
        if r["group"] == "step"
    }
    kinds = [kind for kind in ARITHMETIC if any(key[1] == kind for key in found)]
    lines = [
        f"{'float32 rows':>29}" + "".join(f"   {'ours, ' + kind:^26}" for kind in kinds),
        f"{'columns':>7}{'MB':>5}{'Gvalues/s':>10}{'form':>7}"
        + "".join("   " + " ".join(f"{f'{bits} bit':>6}" for bits in BITS) for _ in kinds),
    ]
    for table in part["tables"]:
        columns = table["columns"]
        row = f"{columns:>7}{table['float32_bytes'] / 1e6:>5.0f}"
        row += f"{table['values_per_second'] / 1e9:>10.2f}{table['row_form']:>7}"
        for kind in kinds:
            cells = []
            for bits in BITS:
                record = found.get((columns, kind, bits))
                cells.append(f"{record['ratio']:>6.2f}" if record else f"{'-':>6}")
            row += "   " + " ".join(cells)
        lines.append(row)
    packed = sorted({(-r["stored_bits"], r["packed_bytes"]) for r in found.values()})
    sizes = {-bits: size for bits, size in packed}
    packed_text = ", ".join(f"{size / 1e6:.0f} MB at {bits}" for bits, size in sizes.items())
    return [*lines, f"packed: {packed_text} stored bits a value"]


def peers_table(part: Record) -> list[str]:
    """The peers by width."""
    found: dict[int, dict[str, Record]] = {}
    for record in part["records"]:
        if record["group"] == "peer":
            found.setdefault(record["columns"], {})[record["name"]] = record
    names = list(dict.fromkeys(name for by_name in found.values() for name in by_name))
    # In the order of the longest list: at some widths the plain form is the fastest one.
    names = sorted(names, key=lambda name: name != "float32 rows, plain")
    lines = [f"{'peer':<30}" + "".join(f"{columns:>9}" for columns in found) + "  columns"]
    for name in names:
        cells = [
            f"{by_name[name]['ratio']:>9.2f}"
            if name in by_name
            else f"{1.0 if 'plain' in name else float('nan'):>9.2f}"
            for by_name in found.values()
        ]
        lines.append(f"{name:<30}" + "".join(cells))
    return lines


def comparison(record: Record) -> str:
    """One comparison on a line, with its range."""
    return (
        f"  {record['columns']:>5} columns  {record['name']:<38}{record['ratio']:>6.2f}"
        f"   ({record['lowest']:.2f} to {record['highest']:.2f}, {record['rounds']} pairs; "
        f"{record['values_per_second'] / 1e9:.2f} Gvalues/s)"
    )


def codecs(part: Record) -> list[str]:
    """The table of the codecs."""
    rows, columns = part["chunk"]
    lines = [
        f"CODECS: {part['chunks']} chunks of {rows} x {columns} float32, "
        f"{part['float32_bytes'] / 1e6:.0f} MB; normal values, cut off at 4.",
        "GB/s of float32; ratio: to a copy of the same chunks; smaller: times, than float32.",
        "",
        f"{'':44}{'smaller':>8}{'rms error':>11}{'encode':>9}{'ratio':>7}{'decode':>9}{'ratio':>7}",
    ]
    lines += [
        f"{r['name']:<44}{r['size_ratio']:>8.2f}{r['rms_error']:>11.3f}"
        + "".join(
            f"{r[way]['bytes_per_second'] / 1e9:>9.2f}{r[way]['ratio']:>7.3f}"
            for way in ("encode", "decode")
        )
        for r in part["records"]
    ]
    copies = [
        r[way]["copy_bytes_per_second"] for r in part["records"] for way in ("encode", "decode")
    ]
    lines.append(f"copy: {min(copies) / 1e9:.1f} to {max(copies) / 1e9:.1f} GB/s")
    return lines


def imports(part: Record) -> list[str]:
    """The cost of the import."""
    return [
        f"IMPORT: zipml_codecs adds {part['added_ms']:.1f} ms ({part['lowest_ms']:.1f} to "
        f"{part['highest_ms']:.1f}) to the {part['without_ms']:.0f} ms of a process that imports",
        f"numpy and numcodecs; median of {part['processes']} pairs of fresh processes. Inside a "
        f"process the import takes {part['inside_ms']:.1f} ms.",
    ]


def bytes_(size: int) -> str:
    """Bytes as a cache's size."""
    return f"{size >> 20} MB" if size >= 1 << 20 else f"{size >> 10} kB"
