"""Which seed does each purpose use? One per purpose, derived from the run's own."""

import hashlib

import torch

SEED_LIMIT = 2**31
"""Seeds are below this: it fits a Postgres integer, and torch's CPU generator reads 32 bits."""


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A seed for one purpose of a run: the same arguments give the same seed on every machine."""
    text = repr((seed, *purpose)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8]) % SEED_LIMIT


def generator_for(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose of a run.

    Noise is always drawn on the CPU, so that a GPU run draws the same one.
    """
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))
