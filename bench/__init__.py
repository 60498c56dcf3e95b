"""The reproducible tables: each module writes one CSV under `bench/results/`, and the README quotes only those."""

import os

# numpy and scipy read it once, when they are loaded. With one thread a row does not depend on the number of cores:
# eigenvectors do, in their last bits, and a student that learns from them in more.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
