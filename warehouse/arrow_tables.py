"""Arrow tables of results as pandas and other programs take them; both are imported when needed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def with_whole_sums(table: pa.Table) -> pa.Table:
    """Sums of whole numbers, which DuckDB gives 128 bits, as whole numbers of 64 bits where they
    fit; other decimals stay as they are, with all their digits.
    """
    import pyarrow as pa

    for index, column in enumerate(table.schema):
        if not pa.types.is_decimal(column.type):
            continue
        with contextlib.suppress(pa.ArrowInvalid):  # a fraction, or too large
            values = table.column(index).cast(pa.int64())
            table = table.set_column(index, column.name, values)

    return table


def without_decimals(table: pa.Table) -> pa.Table:
    """As `with_whole_sums`, with other decimals as floats, which pandas can compute with."""
    import pyarrow as pa

    table = with_whole_sums(table)
    for index, column in enumerate(table.schema):
        if pa.types.is_decimal(column.type):
            values = table.column(index).cast(pa.float64())
            table = table.set_column(index, column.name, values)

    return table


def data_frame(table: pa.Table) -> pd.DataFrame:
    """A DataFrame in which a missing value turns no whole number into a float."""
    import pandas as pd
    import pyarrow as pa

    types = {
        pa.int8(): pd.Int8Dtype(),
        pa.int16(): pd.Int16Dtype(),
        pa.int32(): pd.Int32Dtype(),
        pa.int64(): pd.Int64Dtype(),
        pa.uint8(): pd.UInt8Dtype(),
        pa.uint16(): pd.UInt16Dtype(),
        pa.uint32(): pd.UInt32Dtype(),
        pa.uint64(): pd.UInt64Dtype(),
        pa.bool_(): pd.BooleanDtype(),
    }
    return table.to_pandas(types_mapper=types.get, date_as_object=False)
