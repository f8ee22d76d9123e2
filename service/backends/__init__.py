"""
Inference engines for the packed graph. No torch.

In reading order:

- ``protocol``: what the batcher needs of an engine
- ``artefact``: reading what the export stage wrote beside the weights
- ``onnx``: ONNX Runtime, for any CPU
- ``openvino``: OpenVINO in bfloat16, for CPUs with matrix tiles (AMX)
- ``choice``: which engine this CPU gets
"""
