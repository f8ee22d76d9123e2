"""
What can be wrong with a value that crosses a boundary.

    ContractError
    ├── BadTaxonomy        labels that cannot be a taxonomy
    ├── BadUtterance       a labelled utterance that breaks the record format
    ├── BadPolicy          a policy number out of range, or for other intents
    ├── BadEvent           an event that cannot be read
    ├── BadManifest        a manifest that lacks a field or has one of the wrong type
    ├── BadCosts           a cost table that does not fit its taxonomy
    ├── BadTuning          a limit that a deployment may not have
    ├── DeploymentMoved    what serves is no longer what a change was decided on
    ├── CannotMeasure      data that a measure is not defined on
    ├── NeuronRefused      Inferentia cannot be used, with the reason (in ``neuron``)
    └── VersionError       a version folder that must not be served
        ├── VersionNotFound
        ├── FileMissing
        ├── DigestMismatch
        └── NothingToRollBackTo
"""


class ContractError(ValueError):
    """Root of the tree; the message names the field, what was got and what is allowed."""


class BadTaxonomy(ContractError):
    """Labels that cannot be a taxonomy."""


class BadUtterance(ContractError):
    """A labelled utterance that breaks the record format."""


class BadPolicy(ContractError):
    """A policy number is out of range, or the policy belongs to other intents."""


class BadEvent(ContractError):
    """An event that cannot be read: malformed, or of a newer schema."""


class BadManifest(ContractError):
    """A manifest that lacks a field or has one of the wrong type."""


class BadCosts(ContractError):
    """A cost table that names unknown labels, or a cost that is negative or not a number."""


class BadTuning(ContractError):
    """A tuned limit that is unknown, no whole number or too small."""


class DeploymentMoved(ContractError):
    """What serves is no longer what a change was decided on."""


class CannotMeasure(ContractError):
    """Data that a measure is not defined on: none, of unequal length, out of range, or of one class only."""


class VersionError(ContractError):
    """A version folder that must not be served."""


class VersionNotFound(VersionError):
    """No such version in the model repository."""


class FileMissing(VersionError):
    """A file that the manifest names is not there."""


class DigestMismatch(VersionError):
    """A file's content is not what the manifest says it was."""


class NothingToRollBackTo(VersionError):
    """No earlier version or policy revision is remembered."""
