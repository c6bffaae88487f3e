"""How pictures are drawn. What must be said to the libraries before they are imported is said here."""

import os

for _name, _value in {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    # An idle OpenMP thread spins for milliseconds before it sleeps. As soon as anything else wants a core (the browser that
    # shows the page, say), small operations then wait for each other's time slices: 0.1 ms became 16 ms on 2 busy cores.
    # A thousand spins are as fast on an idle machine and 50 times faster on a busy one.
    "GOMP_SPINCOUNT": "1000",
}.items():
    os.environ.setdefault(_name, _value)
