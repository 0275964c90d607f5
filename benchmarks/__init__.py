"""Side-by-side measurements; each prints a table of ratios and writes JSON into benchmarks/results."""
