"""
Inference engines for the packed graph. No torch.

In reading order:

- ``protocol``: what the batcher needs of an engine
- ``artefact``: what the export stage writes beside the weights, and the sizes of the graph
- ``packing``: utterances laid end to end in one row
- ``onnx``: ONNX Runtime, for any CPU
- ``openvino``: OpenVINO in bfloat16, for CPUs with matrix tiles (AMX)
- ``choice``: which engine this CPU gets
"""
