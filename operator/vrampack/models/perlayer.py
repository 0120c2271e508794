"""Fields that some layers have of their own."""

from collections.abc import Mapping

from vrampack.models.fields import MAX_ITEMS, Fields


def layer_fields(text: Fields, *, layers: int) -> list[Fields]:
    """The fields that hold for each layer: ``per_layer_config`` overrides some by the layer's number.

    Raises InvalidInputError for a number that is none.
    """
    listed = text.get("per_layer_config")
    if listed is None:
        return [text] * layers
    if not isinstance(listed, Mapping) or len(listed) > MAX_ITEMS:
        raise text.refusal("per_layer_config", listed, f"an object of at most {MAX_ITEMS} layers")
    found = [text] * layers
    for place, values in listed.items():
        if not isinstance(place, str) or not place.isascii() or not place.isdigit() or len(place) > 4:
            raise text.refusal("per_layer_config", place, "numbers of layers")
        if not isinstance(values, Mapping):
            raise text.refusal(f"per_layer_config.{place}", values, "an object")
        if int(place) < layers:
            found[int(place)] = text.replaced(values)
    return found
