"""From blocks of a source to the matrix that is compressed and trained on.

`FeatureEncoder` maps every block to a float64 matrix: numbers as they are, text columns one-hot
by categories fixed beforehand. It is stored with the data and with the model, so that both encode
alike. It does not scale and does not fill in missing values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import numpy.typing as npt

from zipml_ooc.errors import DataError, UsageError
from zipml_ooc.sources.base import Block, Source, name_list

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class FeatureEncoder:
    """Maps blocks to a float64 matrix of (rows, len(names)).

    Parameters
    ----------
    columns
        The feature columns of the source, in order.
    categories
        The categories of every one-hot column; the columns absent from it are numeric.

    Examples
    --------
    >>> FeatureEncoder(("size", "colour"), {"colour": ("blue", "red")}).names
    ('size', 'colour=blue', 'colour=red')
    """

    columns: tuple[str, ...]
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        strange = [name for name in self.categories if name not in self.columns]
        if strange:
            raise DataError(f"categories are given for unknown columns: {name_list(strange)}")
        names = self.names
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise DataError(
                f"feature names occur twice: {name_list(twice)}; rename the source columns"
            )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the output columns: the column's own, or ``column=category``."""
        return tuple(
            name
            for column in self.columns
            for name in (
                (f"{column}={category}" for category in self.categories[column])
                if column in self.categories
                else (column,)
            )
        )

    @classmethod
    def fit(
        cls, source: Source, categorical: str, block_rows: int, max_categories: int = 1000
    ) -> FeatureEncoder:
        """Learn the categories of the text columns, in one pass if there are any.

        Parameters
        ----------
        source
            The data to encode.
        categorical
            ``"error"`` refuses text columns, ``"one-hot"`` encodes them.
        block_rows
            Rows to read at once.
        max_categories
            A column with more categories than this is refused.
        """
        if categorical not in ("error", "one-hot"):
            raise UsageError(f"categorical must be 'error' or 'one-hot', not {categorical!r}")
        text = source.text_columns
        if not text:
            return cls(tuple(source.columns))
        if categorical == "error":
            raise DataError(
                f"{source.paths[0]}: text columns cannot be used as they are: {name_list(text)}; "
                "encode them with --categorical one-hot, or remove them"
            )
        import pyarrow.compute as pc

        found: dict[str, set[str]] = {column: set() for column in text}
        for block in source.blocks(block_rows):
            table: Any = block.features
            for name in text:
                column = table.column(name)
                if column.null_count:
                    _refuse_first_null(column, name, block)
                found[name].update(pc.unique(column).to_pylist())
                if len(found[name]) > max_categories:
                    raise DataError(
                        f"{source.paths[0]}: column {name!r} has more than {max_categories} "
                        "categories; remove it, group its values, or raise max_categories"
                    )
        return cls(tuple(source.columns), {name: tuple(sorted(found[name])) for name in text})

    def transform(self, block: Block) -> npt.NDArray[np.float64]:
        """Encode a block.

        Returns
        -------
        numpy.ndarray
            C-contiguous float64 of shape (rows, len(names)); a missing number is NaN.

        Raises
        ------
        DataError
            A category is missing or unknown, or the columns are not the encoder's.
        """
        features = block.features
        if isinstance(features, np.ndarray):
            if features.shape[1] != len(self.columns) or self.categories:
                raise DataError(
                    f"a block of {features.shape[1]} numeric columns does not fit the encoder of "
                    f"{len(self.columns)} columns, {len(self.categories)} of them one-hot"
                )
            return np.ascontiguousarray(features, dtype=np.float64)
        return self._transform_table(features, block)

    def _transform_table(self, table: pa.RecordBatch, block: Block) -> npt.NDArray[np.float64]:
        present = set(table.schema.names)
        missing = [name for name in self.columns if name not in present]
        if missing:
            raise DataError(f"columns are missing from the block: {name_list(missing)}")
        out = np.zeros((block.rows, len(self.names)), dtype=np.float64)
        position = 0
        for name in self.columns:
            column = table.column(name)
            if name not in self.categories:
                out[:, position] = _numbers(column, name, block)
                position += 1
                continue
            codes = _codes(column, self.categories[name], name, block)
            out[np.arange(block.rows), position + codes] = 1.0
            position += len(self.categories[name])
        return out

    def to_dict(self) -> dict[str, Any]:
        """A form that fits JSON."""
        return {
            "columns": list(self.columns),
            "categories": {name: list(values) for name, values in self.categories.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FeatureEncoder:
        """Rebuild an encoder from `to_dict`; what does not look like one is refused."""
        columns = data.get("columns") if isinstance(data, Mapping) else None
        if not _is_names(columns):
            raise DataError("the stored feature encoder has no list of column names in 'columns'")
        categories = data.get("categories", {})
        if not isinstance(categories, Mapping) or not all(map(_is_names, categories.values())):
            raise DataError("the stored feature encoder has no lists of text in 'categories'")
        return cls(tuple(columns), {name: tuple(values) for name, values in categories.items()})


def _is_names(value: Any) -> TypeGuard[Sequence[str]]:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and all(isinstance(name, str) for name in value)
    )


def _numbers(column: Any, name: str, block: Block) -> npt.NDArray[np.float64]:
    import pyarrow as pa

    if not pa.types.is_floating(column.type):
        value = column[0].as_py() if len(column) else None
        raise DataError(
            f"{_place(block, 0, name)}: {value!r} is text, but this column is numeric; "
            "correct the data"
        )
    values: npt.NDArray[np.float64] = column.to_numpy(zero_copy_only=False)
    return values


def _codes(
    column: Any, categories: tuple[str, ...], name: str, block: Block
) -> npt.NDArray[np.int64]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.null_count:
        _refuse_first_null(column, name, block)
    text = column
    if pa.types.is_floating(column.type):
        # A file may hold only such categories of a text column as look like numbers: 1, not 1.0.
        text = pc.replace_substring_regex(pc.cast(column, pa.large_string()), r"\.0$", "")
    codes = pc.index_in(text, value_set=pa.array(categories, pa.large_string()))
    if codes.null_count:
        row = int(np.flatnonzero(codes.is_null().to_numpy(zero_copy_only=False))[0])
        raise DataError(
            f"{_place(block, row, name)}: the category {text[row].as_py()!r} is unknown; "
            f"known are {name_list(categories)}; remove the row, or fit again with it"
        )
    positions: npt.NDArray[np.int64] = codes.to_numpy(zero_copy_only=False)
    return positions


def _refuse_first_null(column: Any, name: str, block: Block) -> None:
    row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
    raise DataError(
        f"{_place(block, row, name)}: the category is missing (empty); "
        "give it a value or remove the row"
    )


def _place(block: Block, row: int, column: str) -> str:
    return f"row {block.first_row + row} (counted from 0), column {column!r}"
