"""
Stand-ins for the Neuron software, which no public index carries.

- ``torch_neuronx``: the published interface, strict; ``trace`` is a guarded ``torch.jit.trace`` on the CPU
- ``facts``: what optimum-neuron passes to the real one, read from its source
- ``installed``: the stand-in as other processes find it, with a device
- ``compiled``: the tiny model compiled by the stand-in, and a runtime that fails when told to
"""
