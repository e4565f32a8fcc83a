"""Training on data that are streamed from disk, beside the tools that people use for it today.

    python -m benchmarks.outofcore [--json] [--rows 1000000] [--columns 100] [--only epoch,...]

Parts: `epoch` (epochs and the time to 1 % above the best loss, against scikit-learn, dask-ml and
Vowpal Wabbit), `loading` (reading and checking chunks, against plain `read()` of the same files
and zarr-python's decoding) and `memory` (a table far larger than the memory of the process that
trains on it).

All sides run in the same process or run, in turns. Files lie in the page cache, so that the disk's
speed does not enter: bytes are shown instead. Needs the packages of the extra ``bench``; a peer
that is not installed is left out, and named.
"""
