"""Encoding and decoding beside other lossy and lossless codecs, and beside a plain copy.

The table is a list of chunks as a user would have them; each turn goes through all of them. Peers
differ in what they keep: the sizes stand beside the speeds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numcodecs import FixedScaleOffset, PackBits, Zstd
from numcodecs import Quantize as NumcodecsQuantize
from zipml_codecs import EncodedChunk, Quantizer, _native, encode_chunk

from .timing import FULL, QUICK, Paired, paired, table_bytes

ROWS, COLUMNS = 8192, 100
"""A chunk: 3.3 MB of float32."""

LIMIT = np.float32(4)
"""Values are normal, mean 0 and variance 1, cut off here."""

SLOW = ("own bounds", "2 bits: core", "Quantize to 1 digit, Zstd 1", "pcodec", "LZ4 1", "lossless")
"""Ends of the names of what a quick run leaves out."""

Chunk = npt.NDArray[np.float32]
Record = dict[str, Any]


@dataclass(frozen=True)
class Codec:
    """A way to store a chunk. `error`: the largest that it may make; values have variance 1."""

    name: str
    encode: Callable[[Chunk], Any]
    decode: Callable[[Any], npt.NDArray[Any]]
    size: Callable[[Any], int]
    error: float


def ours() -> Iterator[Codec]:
    """The native core into given buffers, and whole chunks with headers, checks and bounds."""
    lower, upper = np.full(COLUMNS, -LIMIT), np.full(COLUMNS, LIMIT)
    for bits, samples in ((8, 1), (4, 1), (4, 2), (2, 1), (1, 1)):
        name = f"{bits} bit{'s' if bits > 1 else ''}" + (" x 2 samples" if samples == 2 else "")
        error = 8 / (2**bits - 1) * 1.001
        quantizer = Quantizer(bits=bits, samples=samples)
        codes = np.empty(_native.codes_size(ROWS, COLUMNS, bits + samples - 1), np.uint8)
        values = np.empty((ROWS, COLUMNS), "f4")
        variance = np.empty(COLUMNS, np.uint64)

        def encode_core(
            chunk: Chunk, bits: int = bits, samples: int = samples, codes: Any = codes,
            variance: Any = variance,
        ) -> Any:  # fmt: skip
            _native.encode_f32(
                values=chunk, lower=lower, upper=upper, bits=bits, samples=samples, seed=1,
                first_tile=0, half=False, codes=codes, variance=variance, row_variance=None,
            )  # fmt: skip
            return codes

        def decode_core(
            codes: Any, bits: int = bits, samples: int = samples, values: Any = values
        ) -> npt.NDArray[Any]:
            _native.decode_f32(
                codes=codes, chunk_rows=ROWS, first_tile=0, lower=lower, upper=upper, bits=bits,
                samples=samples, half=False, out=values,
            )  # fmt: skip
            return values

        def encode_bounded(chunk: Chunk, quantizer: Quantizer = quantizer) -> Any:
            return encode_chunk(
                chunk, quantizer, lower=lower, upper=upper, first_tile=0, chunk_shape=chunk.shape
            )

        def encode_alone(chunk: Chunk, quantizer: Quantizer = quantizer) -> Any:
            return encode_chunk(chunk, quantizer)

        def decode_chunk(data: Any) -> npt.NDArray[Any]:
            return EncodedChunk.parse(data).decode()

        yield Codec(f"ours, {name}: core", encode_core, decode_core, lambda c: c.nbytes, error)
        if bits == 4:
            name = f"ours, {name}: chunk"
            yield Codec(f"{name}, given bounds", encode_bounded, decode_chunk, len, error)
            yield Codec(f"{name}, own bounds", encode_alone, decode_chunk, len, error)


def peers() -> Iterator[Codec]:
    """Codecs of the Zarr world; of Blosc2 and pcodec those that suit floats."""
    zstd = Zstd(level=1)
    pack = PackBits()
    for bits in (8, 4):
        levels = 2**bits - 1
        to_codes = FixedScaleOffset(float(-LIMIT), levels / 8, dtype="f4", astype="u1")
        yield Codec(
            f"FixedScaleOffset to {bits} bits, Zstd 1",
            lambda chunk, to_codes=to_codes: zstd.encode(to_codes.encode(chunk)),
            lambda data, to_codes=to_codes: to_codes.decode(zstd.decode(data)),
            len,
            4.001 / levels,
        )
    to_bit = FixedScaleOffset(float(-LIMIT), 1 / 8, dtype="f4", astype="u1")
    yield Codec(
        "FixedScaleOffset to 1 bit, PackBits",
        lambda chunk: pack.encode(to_bit.encode(chunk).view(bool)),
        lambda data: to_bit.decode(pack.decode(data).view("u1")),
        lambda data: data.nbytes,
        4.001,
    )
    rounded = NumcodecsQuantize(digits=1, dtype="f4")
    yield Codec(
        "Quantize to 1 digit, Zstd 1",
        lambda chunk: zstd.encode(rounded.encode(chunk)),
        lambda data: rounded.decode(np.frombuffer(zstd.decode(data), "f4")),
        len,
        0.05,
    )
    yield from blosc2_codecs()
    yield from pcodec_codecs()


def blosc2_codecs() -> Iterator[Codec]:
    """Blosc2 on one thread; 5 of 23 bits of the mantissa are kept."""
    try:
        import blosc2
    except ImportError:
        return
    for name, codec in (("Zstd 1", blosc2.Codec.ZSTD), ("LZ4 1", blosc2.Codec.LZ4)):
        options = {
            "codec": codec,
            "clevel": 1,
            "typesize": 4,
            "nthreads": 1,
            "filters": [blosc2.Filter.TRUNC_PREC, blosc2.Filter.BITSHUFFLE],
            "filters_meta": [5, 0],
        }
        yield Codec(
            f"Blosc2 trunc_prec 5, bitshuffle, {name}",
            lambda chunk, options=options: blosc2.compress2(chunk, **options),
            lambda data: np.frombuffer(blosc2.decompress2(data, nthreads=1), "f4"),
            len,
            4 / 2**5,
        )


def pcodec_codecs() -> Iterator[Codec]:
    """pcodec is lossless; alone, and after the same rounding to a digit."""
    try:
        from pcodec import ChunkConfig, standalone
    except ImportError:
        return
    rounded = NumcodecsQuantize(digits=1, dtype="f4")
    for name, before, error in (
        ("pcodec, lossless", lambda chunk: chunk, 0.0),
        ("Quantize to 1 digit, pcodec", rounded.encode, 0.05),
    ):
        config = ChunkConfig(compression_level=4)
        yield Codec(
            name,
            lambda chunk, before=before, config=config: standalone.simple_compress(
                np.ravel(before(chunk)), config
            ),
            standalone.simple_decompress,
            len,
            error,
        )


def measure(quick: bool = False) -> Record:
    """Every codec against a copy of the same chunks."""
    effort = QUICK if quick else FULL
    rng = np.random.default_rng(2)
    count = table_bytes() // (4 * ROWS * COLUMNS) + 1
    chunks = [
        np.clip(rng.standard_normal((ROWS, COLUMNS), "f4"), -LIMIT, LIMIT) for _ in range(count)
    ]
    for chunk in chunks:  # the bounds are reached, so that those found are those given
        chunk[0], chunk[1] = -LIMIT, LIMIT
    copies = [chunk.copy() for chunk in chunks]
    total = sum(chunk.nbytes for chunk in chunks)

    def copy() -> None:
        for target, chunk in zip(copies, chunks, strict=True):
            np.copyto(target, chunk)

    records = []
    for codec in [*ours(), *peers()]:
        if quick and codec.name.endswith(SLOW):
            continue
        print(f"codecs, {codec.name}", file=sys.stderr)
        error = checked_error(codec, chunks[0])
        encoded = [frozen(codec.encode(chunk)) for chunk in chunks]
        size = sum(codec.size(data) for data in encoded)

        def encode(codec: Codec = codec) -> None:
            for chunk in chunks:
                codec.encode(chunk)

        def decode(codec: Codec = codec, encoded: list[Any] = encoded) -> None:
            for data in encoded:
                codec.decode(data)

        records.append(
            {
                "name": codec.name,
                "size_ratio": total / size,
                "rms_error": error,
                "encode": speed(paired(encode, copy, effort), total),
                "decode": speed(paired(decode, copy, effort), total),
            }
        )
    return {
        "chunk": [ROWS, COLUMNS],
        "chunks": count,
        "float32_bytes": total,
        "records": records,
    }


def checked_error(codec: Codec, chunk: Chunk) -> float:
    """The root mean square error; none may be larger than the codec is listed with."""
    found = np.asarray(codec.decode(codec.encode(chunk))).reshape(chunk.shape)
    worst = float(np.abs(found - chunk).max())
    if not worst <= codec.error:
        raise AssertionError(f"{codec.name} is off by {worst}, more than {codec.error}")
    return float(np.sqrt(np.mean(np.square(found - chunk), dtype=np.float64)))


def frozen(encoded: Any) -> Any:
    """The core writes to one buffer again and again: keep what is in it now."""
    return encoded.copy() if isinstance(encoded, np.ndarray) else encoded


def speed(timed: Paired, total: int) -> Record:
    """With bytes of float32 in a second, of the codec and of the copy."""
    return asdict(timed) | {
        "bytes_per_second": total / timed.seconds,
        "copy_bytes_per_second": total / timed.base_seconds,
    }
