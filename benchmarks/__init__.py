"""What our engine and router cost, as ratios to a bare client and to stock Faust. See docs/benchmarks.md."""
