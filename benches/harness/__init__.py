"""The benches' harness: contestants, clients, works, goals, report. `benches/run` is its command line."""
