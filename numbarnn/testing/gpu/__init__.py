"""Check and measure numbarnn on this machine's GPU: ``python -m numbarnn.testing.gpu --out gpu.json --minutes 8``.

First recurrent passes of random shapes and options against the CPU's kernels in float64, in memory full of NaN, twice
with the same bits; then, against PyTorch's cuDNN, forward and forward+backward over a grid of sizes.  The cases run in
a process of their own, which is begun anew when one of them crashes it or does not end; the JSON file is written after
every case.  Needs NumPy, SciPy, Numba, numba-cuda and CuPy; PyTorch for the second part.
"""
