"""Numba kernels: the loops that numpy cannot say and that sit right behind a matrix product.

    measures, tiles ...          plain functions, arrays in, arrays out
          │
          ▼
    ┌───────────────────────── compiled ─────────────────────────┐
    │ public function: checks nothing, allocates the output,     │
    │                  hands every input over as a read-only view│
    │        │                                                   │
    │        ▼                                                   │
    │ @kernel: njit(nogil, cache), serial inside                 │
    └────────────────────────────────────────────────────────────┘

Rules of the house:

- *Serial.* Threads belong to the engine: kernels release the GIL and never start threads.
- *One signature per kernel.* A memory-mapped array is read-only and numba compiles read-only and
  writable arrays apart, so every input goes in as a read-only C-contiguous view: one compile, one
  machine code, one answer.
- *Cached on disk*, so that workers do not compile.
- *Imported late.* numba takes half a second to import: callers import these modules inside the
  function that needs them, and this package imports none of them.

May import numpy, numba, `simdist.types` and `simdist.errors`; nothing else of simdist.
"""
