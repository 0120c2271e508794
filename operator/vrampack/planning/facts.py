"""A ModelProfile's spec as the estimate takes it."""

from dataclasses import replace

from vrampack.api.modeldeployment import WeightsPrecision
from vrampack.api.modelprofile import ModelProfileSpec
from vrampack.errors import InvalidInputError
from vrampack.memory.architecture import Architecture, Weights, WeightsMethod
from vrampack.memory.census import census_of
from vrampack.planning.layerfacts import layer_runs
from vrampack.planning.weightfacts import layer_weights, loaded_tensors


def architecture_and_weights(spec: ModelProfileSpec) -> tuple[Architecture, Weights]:
    """What the estimate needs of a profile, whether vrampack wrote it or a person did.

    Raises InvalidInputError, with the field, for figures that contradict each other.
    """
    files = spec.weight_files
    total, embedding, replicated = files.bytes.bytes, files.embedding_bytes.bytes, files.replicated_bytes.bytes
    tower = files.tower_bytes.bytes if files.tower_bytes is not None else 0
    if (parts := embedding + replicated + tower) > total:
        raise InvalidInputError(
            field="spec.weightFiles.bytes",
            value=files.bytes,
            allowed=f"at least embeddingBytes, replicatedBytes and towerBytes together, {parts} bytes",
        )
    if spec.precision is WeightsPrecision.AUTO:
        raise InvalidInputError(
            field="spec.precision", value=spec.precision.value, allowed="the precision that the files are stored in"
        )
    shape = spec.architecture
    if shape.attention_heads % shape.kv_heads if shape.kv_heads else shape.attention_heads:
        raise InvalidInputError(
            field="spec.architecture.kvHeads",
            value=shape.kv_heads,
            allowed=f"a divisor of attentionHeads, {shape.attention_heads}",
        )
    for field, value in (("attentionHeads", shape.attention_heads), ("headDim", shape.head_dim)):
        if not value and not shape.layer_kinds:
            allowed = "at least 1, or layerKinds that say what each layer keeps"
            raise InvalidInputError(field=f"spec.architecture.{field}", value=value, allowed=allowed)
    plain = {name: getattr(shape, name) for name in type(shape).model_fields.keys() - {"layer_kinds", "layer_order"}}
    architecture = Architecture(**plain, runs=layer_runs(shape))
    weights = Weights(
        total=total,
        parameters=spec.parameters,
        precision=spec.precision.value,
        embedding=embedding,
        replicated=replicated,
        tower=tower,
        predict=files.predict_bytes.bytes if files.predict_bytes is not None else 0,
        converted=files.converted_bytes.bytes if files.converted_bytes is not None else 0,
        method=WeightsMethod(files.known_by.value) if files.known_by is not None else WeightsMethod.TENSORS,
    )
    if (layout := files.layout) is not None:
        layers = layer_weights(layout, layers=architecture.layers)
        weights = replace(
            weights,
            layers=layers,
            census=census_of((run.count, tensor) for run in layers for tensor in run.tensors),
            before=loaded_tensors(layout.before),
            towers=loaded_tensors(layout.towers),
            after=loaded_tensors(layout.after),
        )
    return architecture, weights
