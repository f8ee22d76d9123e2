"""
The offline pipeline: from labelled text to a version that serves. Torch lives here and nowhere else.

In reading order:

- ``run``: every stage, one after the other
- ``settings``: presets, read from TOML

Data, without torch:

- ``data``: the labelled set of a version
- ``mixture``: what is put around the authored messages
- ``sources``: the public sets, their licences, our reading of their labels
- ``adapt``: neighbouring shops' text made usable here
- ``generator``: messages of our own, composed by a grammar
- ``grammar``: the grammar's files
- ``composing``: two authored requests in one message
- ``typing_noise``: how people mistype
- ``production``: labels of production, added to the training split
- ``corrections``: labels set right, in the training split only
- ``splits``: near-duplicate groups, and a split that none straddles
- ``data_card``: what there is to say about the set

Training:

- ``train``: one network from one seed
- ``average``: several of them, their weights averaged
- ``quantise``: one in 8 bits, trained on or rounded as it is
- ``membership``: a head beside it that asks of each intent whether it is carried
- ``quantised``: layers that round as an 8-bit engine does
- ``base_model``: the checkpoint it starts from
- ``vocabulary``: Japanese word pieces for an English vocabulary
- ``network``: encoder and heads
- ``dataset``: utterances on disk and as tensors
- ``losses``: what is minimised

Judging:

- ``calibrate``: the numbers of a policy, and the reference profile
- ``thresholds``: the threshold of each intent
- ``truth``: labels as arrays
- ``measures``: everything measured of a version's decisions
- ``evaluate``: the report, each figure with its interval
- ``plots``: reliability, confusion, ood scores
- ``model_card``: the card of a version

Serving form:

- ``packed``: the graph without padding
- ``export``: checkpoint to artefact, with parity
- ``measure_engines``: speed and decisions of the engines that could serve it
- ``version``: a version put together and taken into the repository
- ``random_version``: one of random weights, to measure the speed of its sizes

AWS Inferentia2:

- ``compile_neuron``: the packed graph as a few static programs, with golden rows
- ``neuron_buckets``: which row sizes, by counting padded work on real lengths
- ``neuron_gate``: whether decisions survive the device's arithmetic
- ``neuron_check``: all of it on an inf2 host, into one JSON file
- ``neuron_service``: the service that it asks and loads

Public sets:

- ``benchmark``: the same pipeline on other people's labels
- ``public_sets``: those sets as train, validation and test
"""
