"""The reproducible tables: each module writes one CSV under `bench/results/`, and the README quotes only those."""
