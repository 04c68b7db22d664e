"""CycloneDX 1.6 and in-toto Statement v1 with SLSA provenance v1, as far as they are read here.

The dataclasses have the formats' own field names and no others; `cards` turns them into what is
shown. Nothing is decided here.
"""

# ruff: noqa: N815 - the names are those of the formats

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Property:
    """A name and a value of a producer of its own."""

    name: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a data set is said to contain."""

    properties: tuple[Property, ...] = ()


@dataclass(frozen=True, slots=True)
class Data:
    """`componentData`: a data set."""

    name: str = ""
    description: str = ""
    contents: Contents = Contents()


@dataclass(frozen=True, slots=True)
class Tensor:
    """`inputOutputMLParameters`."""

    format: str = ""


@dataclass(frozen=True, slots=True)
class Parameters:
    """`modelParameters`."""

    task: str = ""
    datasets: tuple[Data, ...] = ()
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class Interval:
    """`confidenceInterval`."""

    lowerBound: str | None = None
    upperBound: str | None = None


@dataclass(frozen=True, slots=True)
class Performance:
    """`performanceMetric`."""

    type: str = ""
    value: str = ""
    slice: str = ""
    confidenceInterval: Interval = Interval()


@dataclass(frozen=True, slots=True)
class Analysis:
    """`quantitativeAnalysis`."""

    performanceMetrics: tuple[Performance, ...] = ()


@dataclass(frozen=True, slots=True)
class Considerations:
    """`considerations`."""

    useCases: tuple[str, ...] = ()
    technicalLimitations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Card:
    """`modelCard`."""

    modelParameters: Parameters = Parameters()
    quantitativeAnalysis: Analysis = Analysis()
    considerations: Considerations = Considerations()


@dataclass(frozen=True, slots=True)
class NamedLicence:
    """`license`: an SPDX id, or a name."""

    id: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Licence:
    """`licenseChoice`: an SPDX expression, or a licence."""

    expression: str = ""
    license: NamedLicence = NamedLicence()

    @property
    def name(self) -> str:
        """What people read."""
        return self.expression or self.license.id or self.license.name


@dataclass(frozen=True, slots=True)
class Hash:
    """`hash`."""

    alg: str
    content: str


@dataclass(frozen=True, slots=True)
class Component:
    """`component`: the model, a file or a tool."""

    type: str
    name: str
    version: str = ""
    description: str = ""
    licenses: tuple[Licence, ...] = ()
    hashes: tuple[Hash, ...] = ()
    modelCard: Card = Card()


@dataclass(frozen=True, slots=True)
class Tools:
    """`metadata.tools`."""

    components: tuple[Component, ...] = ()


@dataclass(frozen=True, slots=True)
class Person:
    """`organizationalContact`."""

    name: str = ""


@dataclass(frozen=True, slots=True)
class Metadata:
    """`metadata`."""

    component: Component
    timestamp: str = ""
    authors: tuple[Person, ...] = ()
    tools: Tools = Tools()


@dataclass(frozen=True, slots=True)
class Bom:
    """A CycloneDX document."""

    bomFormat: str
    specVersion: str
    metadata: Metadata
    serialNumber: str = ""
    components: tuple[Component, ...] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """`ResourceDescriptor`: a file or an input, with its digests by algorithm."""

    name: str
    digest: dict[str, str]


@dataclass(frozen=True, slots=True)
class Definition:
    """`buildDefinition`, without the parameters, which have any shape."""

    buildType: str
    resolvedDependencies: tuple[Subject, ...] = ()


@dataclass(frozen=True, slots=True)
class Builder:
    """`builder`."""

    id: str
    version: dict[str, str]


@dataclass(frozen=True, slots=True)
class Run:
    """`runDetails.metadata`."""

    invocationId: str = ""
    startedOn: str = ""


@dataclass(frozen=True, slots=True)
class Details:
    """`runDetails`."""

    builder: Builder
    metadata: Run = Run()


@dataclass(frozen=True, slots=True)
class Predicate:
    """The predicate of SLSA provenance v1."""

    buildDefinition: Definition
    runDetails: Details


@dataclass(frozen=True, slots=True)
class Statement:
    """An in-toto Statement v1."""

    _type: str
    predicateType: str
    subject: tuple[Subject, ...]
    predicate: Predicate
