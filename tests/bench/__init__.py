"""What the benchmarks reckon with."""
