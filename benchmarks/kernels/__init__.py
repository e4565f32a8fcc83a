"""Speed of the native core beside its peers: training steps, encoding, decoding, import.

    python -m benchmarks.kernels [--json] [--quick] [--only training,codec,imports]

Everything runs on one core, over a table that is five times larger than the last-level cache. A
figure is the median over paired runs: ours and the peer take turns in one process, and each turn
gives one ratio. Needs the packages of the extra ``bench`` and a C++20 compiler for the peers.
"""
