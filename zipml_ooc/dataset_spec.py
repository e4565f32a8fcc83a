"""What the attributes of a compressed dataset say, checked: docs/format.md, section "Dataset"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from zipml_codecs import TILE_ROWS, Quantizer
from zipml_codecs.tables import check_places, table_bits_of

from .errors import DataError, UsageError
from .statistics import ColumnStatistics
from .targets import Label

__all__ = ["ATTRIBUTE", "DatasetSpec", "LevelTables"]

ATTRIBUTE = "zipml"
"""Name of the group attribute that holds a `DatasetSpec`."""
_MAJOR = 1
VERSION, _TABLES_VERSION, _WEAVED_VERSION, _SAMPLES_VERSION = "1.0", "1.1", "1.2", "1.3"

# Fields that are left out where there are none, as in version 1.0.
_OPTIONAL = ("level_tables", "precision_variance", "weight")


@dataclass(frozen=True)
class LevelTables:
    """Levels that were fitted to the columns, the same in all chunks.

    Attributes
    ----------
    places : (columns, levels) uint8 or uint16
        See `zipml_codecs.encode_chunk`.
    uniform_variance : (columns,) float64
        What `DatasetSpec.variance` would be with equally spaced levels, from the histograms that
        the levels were found in.
    """

    places: npt.NDArray[Any]
    uniform_variance: npt.NDArray[np.float64]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "bits": table_bits_of(self.places),
            "places": self.places.tolist(),
            "uniform_variance": self.uniform_variance.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], quantizer: Quantizer) -> Self:
        """Build from `to_dict`'s form, and check it."""
        kind = {8: np.uint8, 16: np.uint16}[data["bits"]]
        uniform = np.asarray(data["uniform_variance"], np.float64)
        table = check_places(np.asarray(data["places"], kind), quantizer, len(uniform))
        return cls(table, uniform)


@dataclass(frozen=True)
class DatasetSpec:
    """What the group's attributes say: docs/format.md, section "Dataset".

    Attributes
    ----------
    rows, chunk_rows : int
    columns, targets : tuple of str
    task : {"regression", "classification"} or None
    classes : tuple of labels, or None
    quantizer : Quantizer
    encoder : mapping
        How source columns became these columns, and how missing values were filled.
    standardized : bool
    mean, scale : (columns,) float64
        A stored value is (value - mean) / scale.
    statistics : ColumnStatistics
        Of the source's values.
    lower, upper : (columns,) float32, or None for row scales
        Outer levels of each column, the same in all chunks.
    variance : (columns,) float64
        Rounding variance of one sample, over all rows, in squared units of the stored values.
    target_statistics : ColumnStatistics or None
        Of the targets of a regression.
    source : mapping
        Where the data came from.
    level_tables : LevelTables or None
        None for equally spaced levels.
    precision_variance : (precisions, columns) float64, or None
        Of the weaved layout: `variance` at each of the quantiser's precisions.
    weight : str or None
        Name of the source's column of weights, which are in the array ``sample_weight``; None where
        every row counts once.
    """

    rows: int
    chunk_rows: int
    columns: tuple[str, ...]
    targets: tuple[str, ...]
    task: str | None
    classes: tuple[Label, ...] | None
    quantizer: Quantizer
    encoder: Mapping[str, Any]
    standardized: bool
    mean: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    statistics: ColumnStatistics
    lower: npt.NDArray[np.float32] | None
    upper: npt.NDArray[np.float32] | None
    variance: npt.NDArray[np.float64]
    target_statistics: ColumnStatistics | None
    source: Mapping[str, Any]
    level_tables: LevelTables | None = None
    precision_variance: npt.NDArray[np.float64] | None = None
    weight: str | None = None

    def to_attributes(self) -> dict[str, Any]:
        """Return the JSON form."""
        plain = self.level_tables is None and self.weight is None
        version = VERSION if plain else _TABLES_VERSION
        if self.quantizer.weaved:
            version = _WEAVED_VERSION
        if self.quantizer.samples > 2:
            version = _SAMPLES_VERSION
        out: dict[str, Any] = {"version": version, "complete": True}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _OPTIONAL and value is None:
                continue  # as in version 1.0
            if isinstance(value, np.ndarray):
                value = value.tolist()
            elif isinstance(value, Quantizer | ColumnStatistics | LevelTables):
                value = value.to_dict()
            elif isinstance(value, tuple):
                value = list(value)
            out[field.name] = value
        return out

    @classmethod
    def from_attributes(cls, data: Any, place: str) -> Self:
        """Read and check the JSON form; `place` names the dataset in errors."""
        if not isinstance(data, dict):
            raise DataError(f"{place} is a Zarr group, but no dataset made by `zipml compress`")
        version = str(data.get("version", ""))
        if version.partition(".")[0] != str(_MAJOR):
            raise DataError(
                f"{place} has dataset format {version!r}, this version reads {VERSION}: "
                "update zipml-ooc"
            )
        if data.get("complete") is not True:
            raise DataError(
                f"{place} is not complete: its compression was interrupted; run it again"
            )
        try:
            quantizer, tables = Quantizer.from_dict(data["quantizer"]), None
            if quantizer.levels == "optimal":
                tables = LevelTables.from_dict(data["level_tables"], quantizer)
            spec = cls(
                rows=int(data["rows"]),
                chunk_rows=int(data["chunk_rows"]),
                columns=tuple(data["columns"]),
                targets=tuple(data["targets"]),
                task=data["task"],
                classes=None if data["classes"] is None else tuple(data["classes"]),
                quantizer=quantizer,
                encoder=data["encoder"],
                standardized=bool(data["standardized"]),
                mean=np.asarray(data["mean"], np.float64),
                scale=np.asarray(data["scale"], np.float64),
                statistics=ColumnStatistics.from_dict(data["statistics"]),
                lower=None if data["lower"] is None else np.asarray(data["lower"], np.float32),
                upper=None if data["upper"] is None else np.asarray(data["upper"], np.float32),
                variance=np.asarray(data["variance"], np.float64),
                target_statistics=None
                if data["target_statistics"] is None
                else ColumnStatistics.from_dict(data["target_statistics"]),
                source=data["source"],
                level_tables=tables,
                precision_variance=np.asarray(data["precision_variance"], np.float64)
                if quantizer.weaved
                else None,
                weight=data.get("weight"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"the attributes of {place} are damaged: {error!r}") from error
        if spec.chunk_rows < 1 or spec.chunk_rows % TILE_ROWS:
            raise DataError(f"the attributes of {place} are damaged: chunk rows {spec.chunk_rows}")
        arrays: list[npt.NDArray[Any]] = [
            spec.mean,
            spec.scale,
            spec.variance,
            spec.statistics.mean,
            spec.statistics.std,
        ]
        arrays += [bound for bound in (spec.lower, spec.upper) if bound is not None]
        if spec.level_tables is not None:
            arrays.append(spec.level_tables.uniform_variance)
        if any(array.shape != (len(spec.columns),) for array in arrays) or spec.rows < 1:
            raise DataError(f"the attributes of {place} are damaged: lengths do not match")
        if spec.precision_variance is not None:
            if spec.precision_variance.shape != (len(quantizer.precisions), len(spec.columns)):
                raise DataError(f"the attributes of {place} are damaged: lengths do not match")
            arrays.append(spec.precision_variance)
        if not all(np.isfinite(array).all() for array in arrays) or not (spec.scale > 0).all():
            raise DataError(f"the attributes of {place} are damaged: values that are not finite")
        return spec

    def at(self, bits: int | None) -> Self:
        """Return what a reader at a precision sees; without one, at the highest.

        Raises
        ------
        UsageError
            The dataset cannot be read at that precision.
        """
        q = self.quantizer
        if not q.weaved or self.precision_variance is None:
            if bits not in (None, q.bits):
                raise UsageError(
                    f"the dataset is packed at {q.bits} bits and cannot be read at {bits}: "
                    "compress the source again with --layout weaved, or leave out --bits"
                )
            return self
        precision = q.bits if bits is None else bits
        if precision not in q.precisions:
            raise UsageError(
                f"the dataset is stored for {', '.join(map(str, q.precisions))} bits, not for "
                f"{precision}: use one of these, or compress again with --precisions"
            )
        variance = self.precision_variance[q.precisions.index(precision)]
        return replace(
            self,
            quantizer=q.at(precision),
            variance=variance,
            precision_variance=variance[None],
        )

    @property
    def stored_mean(self) -> npt.NDArray[np.float64]:
        """Mean of each column as stored (zero for standardised columns)."""
        return (self.statistics.mean - self.mean) / self.scale

    @property
    def stored_std(self) -> npt.NDArray[np.float64]:
        """Standard deviation of each column as stored; one where it is constant."""
        std = self.statistics.std / self.scale
        return np.where(std > 0, std, 1.0)

    @property
    def tiles(self) -> int:
        """Number of tiles of 64 rows."""
        return -(-self.rows // TILE_ROWS)

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.rows // self.chunk_rows)

    def rows_of_chunk(self, chunk: int) -> int:
        """Rows that a chunk stores: all but the last are full."""
        return min(self.chunk_rows, self.rows - chunk * self.chunk_rows)
