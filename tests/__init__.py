"""Tests, mirroring the source. Doubles shared by several of them live in `doubles`."""
