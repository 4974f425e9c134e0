"""`python -m benchmarks`: the one there is so far."""

from benchmarks.stages import main

main()
