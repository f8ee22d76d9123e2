"""
Inference engines for the packed graph. No torch, but what ``neuron_runtime`` finds installed.

In reading order:

- ``protocol``: what the batcher needs of an engine
- ``artefact``: reading what the export stage wrote beside the weights
- ``onnx``: ONNX Runtime, for any CPU
- ``openvino``: OpenVINO, for CPUs with matrix tiles (AMX)
- ``membership``: the head of a version that asks for each intent by itself
- ``choice``: which engine this CPU gets

AWS Inferentia2:

- ``neuron``: the same graph in a few static row sizes, on every NeuronCore
- ``neuron_artefact``: reading the compiled programs, digests first
- ``neuron_runtime``: loading programs through torch_neuronx
- ``neuron_cores``: one thread a core, retry, stalls, the end of the last core
- ``neuron_self_check``: golden rows and a living mask, before ready
"""
