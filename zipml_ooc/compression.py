"""From a source to a compressed dataset: one pass for statistics, one that quantises and writes.

Memory is bounded by a few blocks whatever the source's size. The dataset is written beside its
destination and renamed when it is whole, so that a failure leaves the destination as it was. What
is interrupted is kept there, to be resumed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zipml_codecs import Quantizer

from .dataset import Dataset, open_dataset
from .dataset_layout import layout_for
from .dataset_spec import DatasetSpec
from .dataset_writer import DatasetWriter, Progress
from .errors import UsageError
from .features import FeatureEncoder
from .first_pass import STATISTICS_ROWS, first_pass
from .journal import Run, stamps_of
from .parallel import SourceRecipe, open_workforce
from .partial import partial_dataset, settle_published
from .sources import Source, SourceOptions, open_source
from .sources.weights import WeightedSource
from .url_partial import UrlPartial

__all__ = ["LEVEL_CHOICES", "CompressOptions", "compress"]

LEVEL_CHOICES = ("auto", "uniform", "optimal")
# Each thread holds a chunk in double precision.
_MAX_THREADS = 4
# One bit has no level between the outer ones; above, equal spacing is nearly as good.
_AUTO_OPTIMAL_BITS = range(2, 5)


@dataclass(frozen=True)
class CompressOptions:
    """How to compress.

    Parameters
    ----------
    task : {"auto", "regression", "classification"}
    bits, samples, scale, seed, layout, precisions
        See `zipml_codecs.Quantizer`.
    levels : {"auto", "uniform", "optimal"}
        Equally spaced, or those of least rounding variance for each column. ``auto``: optimal from
        2 to 4 bits with scales by column, where they gain most and cost least; else uniform.
        The weaved layout is always uniform.
    standardize : bool
        Store (value - mean) / standard deviation of each column.
    nan : {"error", "mean"}
        Refuse missing values, or put the column's mean over the whole source in their place.
    categorical : {"error", "one-hot"}
        What to do with text columns.
    weight : str, optional
        Numeric column that says how often each row counts in training, zero or more. It is no
        feature then.
    chunk_rows : int, optional
        Rows of a chunk, rounded up to whole tiles of 64; by default about four million values.
    shard_rows : int, optional
        Rows of a shard, an object that holds several chunks; rounded up to whole chunks. 0: each
        chunk is an object. By default there are shards above 64 chunks, of about 128 MB each.
        Format 2 has none.
    zarr_format : {2, 3}
    threads : int, optional
        Encoding threads; the bytes do not depend on it.
    """

    task: str = "auto"
    bits: int = 4
    samples: int = 2
    scale: str = "column"
    layout: str = "packed"
    precisions: tuple[int, ...] = ()
    levels: str = "auto"
    seed: int = 0
    standardize: bool = True
    nan: str = "error"
    categorical: str = "error"
    weight: str | None = None
    chunk_rows: int | None = None
    shard_rows: int | None = None
    zarr_format: int = 3
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.zarr_format not in (2, 3):
            raise UsageError(f"the Zarr format must be 2 or 3, got {self.zarr_format}")
        if self.chunk_rows is not None and self.chunk_rows < 1:
            raise UsageError(f"chunk rows must be positive, got {self.chunk_rows}")
        if self.shard_rows is not None and self.shard_rows < 0:
            raise UsageError(f"shard rows must not be negative, got {self.shard_rows}")
        if self.shard_rows and self.zarr_format == 2:
            raise UsageError("Zarr format 2 has no shards: leave out --shard-rows, or use format 3")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads must be positive, got {self.threads}")
        if self.categorical not in ("error", "one-hot"):
            raise UsageError(f"categorical must be error or one-hot, got {self.categorical!r}")
        if self.levels not in LEVEL_CHOICES:
            raise UsageError(
                f"levels must be one of {', '.join(LEVEL_CHOICES)}; got {self.levels!r}"
            )
        if self.quantizer.levels == "optimal" and self.quantizer.stored_bits > 8:
            raise UsageError(
                "optimal levels take up to 8 stored bits and 8 bits x 2 samples are 9: use "
                "--samples 1, fewer bits, or --levels uniform"
            )

    @property
    def quantizer(self) -> Quantizer:
        """The quantiser of every chunk; missing values are filled in before it sees them."""
        levels = self.levels
        if levels == "auto":
            fits = self.scale == "column" and self.bits in _AUTO_OPTIMAL_BITS
            fits &= self.layout == "packed"
            levels = "optimal" if fits else "uniform"
        try:
            return Quantizer(
                bits=self.bits,
                samples=self.samples,
                scale=self.scale,
                seed=self.seed,
                nan=self.nan,
                levels=levels,
                layout=self.layout,
                precisions=self.precisions,
            )
        except (ValueError, TypeError) as error:
            raise UsageError(str(error)) from error


def compress(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    dest: str | os.PathLike[str],
    options: CompressOptions = CompressOptions(),
    *,
    source_options: SourceOptions = SourceOptions(),  # noqa: B008 - frozen
    force: bool = False,
    resume: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Compress a source to a low-precision Zarr dataset.

    Parameters
    ----------
    sources : path, glob or fsspec URL, or several of them
        Files of the same columns; their rows follow one another.
    dest : path or URL
        Where the Zarr group goes: a folder, or whatever fsspec writes to, such as
        ``s3://bucket/cadata.zarr``.
    options : CompressOptions
    source_options : SourceOptions
        Target columns, names of arrays, CSV dialect.
    force : bool
        Replace an existing dataset; it stays whole until the new one is, but for one behind a URL,
        which is removed once the first pass is over. Start again where an interrupted run left an
        unfinished one.
    resume : bool
        Go on where an interrupted run of the same source and options stopped, if there is one.
        The dataset is the same, to the byte, as that of a run without interruption.
    workers : int, optional
        Read and encode in so many local processes instead of threads, where ranges of rows of the
        source can be read: npy, HDF5, Zarr and Parquet.
    scheduler : str, optional
        Do it on a running Dask cluster, whose workers see source and destination under the same
        paths.
    progress : callable, optional

    Returns
    -------
    Dataset
        The dataset, opened.

    Raises
    ------
    UsageError
        Missing source, unknown target, existing destination; an unfinished dataset without
        `resume` or `force`, or one of another source or other options; another process at work.
    DataError
        Values that cannot be stored, or no space left; the destination is as it was. What was
        written is kept if the values were not the reason.

    Examples
    --------
    >>> from zipml_ooc import SourceOptions, compress
    >>> dataset = compress(
    ...     "cadata.csv.gz", "cadata.zarr", source_options=SourceOptions(target=("price",))
    ... )  # doctest: +SKIP
    """
    paths = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    place = _destination(dest)
    if resume and settle_published(place):
        return open_dataset(place)
    _refuse_existing(place, force=force)
    report = progress or (lambda stage, done, total: None)
    source = open_source([os.fspath(p) for p in paths], source_options)
    if options.weight is not None:
        source = WeightedSource(source, options.weight)
    _refuse_overlap(source, place)
    run = Run(source, source_options, options)
    threads = options.threads or min(_MAX_THREADS, os.cpu_count() or 1)
    stamps = tuple(map(str, stamps_of(source.paths)))
    recipe = SourceRecipe(_everywhere(paths), source_options, options.weight, stamps)
    with (
        partial_dataset(place, force=force, resume=resume) as partial,
        open_workforce(
            source,
            recipe,
            threads=threads,
            threads_given=options.threads,
            workers=workers,
            scheduler=scheduler,
        ) as workforce,
    ):

        def writer_of(plan: DatasetSpec) -> DatasetWriter:
            layout = layout_for(
                plan, zarr_format=options.zarr_format, shard_rows=options.shard_rows
            )
            partial.require_space(layout.most_bytes)
            return DatasetWriter(partial.output, source, layout, workforce, threads)

        plan = run.resume(partial.read(), place) if partial.begun else None
        if plan is None:
            encoder = FeatureEncoder.fit(source, options.categorical, STATISTICS_ROWS)
            plan = first_pass(source, encoder, options, workforce, report)
            writer = writer_of(plan)
            partial.begin(run.journal(plan))
        else:
            writer = writer_of(plan)
            writer.keep_existing(report)
        writer.write(report)
        partial.publish()
    return open_dataset(place)


def _everywhere(paths: Sequence[str | os.PathLike[str]]) -> tuple[str, ...]:
    """Paths as a process in another folder needs them."""
    named = (os.fspath(path) for path in paths)
    return tuple(path if "://" in path else str(Path(path).absolute()) for path in named)


def _destination(dest: str | os.PathLike[str]) -> Path | str:
    """A path, or a URL as text."""
    text = os.fspath(dest)
    if "://" in text and not text.startswith("file://"):
        if text.startswith("zip://"):
            raise UsageError(f"{text}: compress into a folder, and pack that")
        if not text.partition("://")[2].strip("/"):
            raise UsageError(f"{text} cannot be a dataset: give a name in it")
        return text.rstrip("/")
    place = Path(text.removeprefix("file://")).absolute()
    if place.is_symlink():  # what it points to is replaced, and not the link
        try:
            place = place.resolve()
        except (OSError, RuntimeError) as error:  # links that lead to each other
            raise UsageError(f"{place} is a link that leads nowhere: {error}") from error
    if not place.name:
        raise UsageError(f"{place} cannot be a dataset: give the name of a folder in it")
    if not place.parent.is_dir():
        raise UsageError(f"the destination's folder {place.parent} does not exist")
    return place


def _refuse_existing(place: Path | str, *, force: bool) -> None:
    if isinstance(place, str):
        UrlPartial(place).require_ours(force=force)
        return
    if not place.exists():
        return
    if not force:
        raise UsageError(f"{place} exists: choose another destination or use --force")
    if not ((place / "zarr.json").exists() or (place / ".zgroup").exists()):
        raise UsageError(f"{place} is no Zarr group: --force does not replace it")


def _refuse_overlap(source: Source, place: Path | str) -> None:
    kind, dest = _located(place)
    for path in source.paths:
        where, inner = _located(path)
        if where == kind and f"{inner}/".startswith(f"{dest}/"):
            raise UsageError(f"{place} cannot be both source and destination")


def _located(path: Path | str) -> tuple[str, str]:
    """The kind of a file system, and a path there: the same for all spellings of a place."""
    text = os.fspath(path)
    protocol, separator, _ = text.partition("://")
    if not separator or protocol in ("file", "local"):
        return "file", os.fspath(Path(text.removeprefix(f"{protocol}://")).resolve())
    import fsspec

    files = fsspec.get_filesystem_class(protocol)
    protocols = [files.protocol] if isinstance(files.protocol, str) else sorted(files.protocol)
    return protocols[0], str(files._strip_protocol(text)).rstrip("/")
