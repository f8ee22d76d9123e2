"""
What serving, monitoring and the offline pipeline agree on. Standard library and numpy; no I/O.

In reading order:

- ``errors``: what can be wrong with a value that crosses a boundary
- ``labels``: the taxonomy of a model version, and a labelled utterance
- ``outputs``: what a model gives for a batch of utterances
- ``policy``: the numbers that turn logits into a decision
- ``decision``: logits + policy -> accepted intents and the ood verdict
- ``metrics``: quality and calibration measures, with bootstrap intervals
- ``reference``: the reference profile, the distributions that drift is measured against
- ``events``: the immutable records of the event log, and its SQLite schema
- ``manifest``: what a model version folder holds, with digests
"""
