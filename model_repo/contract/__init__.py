"""
What serving, monitoring and the offline pipeline agree on. Standard library and numpy; no I/O.

In reading order:

- ``errors``: what can be wrong with a value that crosses a boundary
- ``labels``: the taxonomy of a model version, and a labelled utterance
- ``outputs``: what a model gives for a batch of utterances
- ``policy``: the numbers that turn logits into a decision
- ``decision``: logits + policy -> accepted intents and the ood verdict
- ``membership``: each intent asked for by itself, and laid into one softmax
- ``metrics``: accuracy, F1, Brier and their kin, of one sample or of many resamples at once
- ``calibration_error``: how far confidence is from accuracy, from bins that a fleet can add up
- ``temperature``: the temperature that labels ask for, and thresholds that survive another one
- ``ranking``: how well a score tells ood from in-scope: AUROC, FPR95, AUPR
- ``costs``: what each kind of mistake costs the business
- ``bootstrap``: a figure is a value with its 95% interval, its sample count and its data
- ``reference``: the reference profile, the distributions that drift is measured against
- ``events``: the immutable records of the event log, and its SQLite schema
- ``log_lines``: how both processes write a log line
- ``engine``: what the export stage tells a serving engine about the graph it wrote
- ``packing``: utterances laid end to end in one row: the input of the packed graph
- ``manifest``: what a model version folder holds, with digests
- ``tuning``: limits that a deployment lowers below the settings of the service
- ``deployment``: what serves, and how one deployment follows from those before
- ``neuron``: the Inferentia2 artefact, and why it may be refused
"""
