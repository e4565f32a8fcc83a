"""What the tests of the sources share."""

import numpy as np


def matrix(block):
    """The features of a block as a float64 matrix, for tables of numbers and for arrays."""
    if isinstance(block.features, np.ndarray):
        return np.asarray(block.features, dtype=np.float64)
    columns = [c.to_numpy(zero_copy_only=False) for c in block.features.columns]
    return np.column_stack(columns).astype(np.float64)


def read_all(source, rows):
    """All features and targets; checks on the way what every source promises of its blocks."""
    blocks = list(source.blocks(rows))
    first_row = 0
    for i, block in enumerate(blocks):
        assert block.first_row == first_row
        assert block.rows == rows if i < len(blocks) - 1 else 1 <= block.rows <= rows
        first_row += block.rows
        if source.targets:
            assert len(block.target) == block.rows
        else:
            assert block.target is None
    features = np.concatenate([matrix(block) for block in blocks])
    assert features.shape[1] == len(source.columns)
    targets = [block.target for block in blocks]
    return features, np.concatenate(targets) if source.targets else None
