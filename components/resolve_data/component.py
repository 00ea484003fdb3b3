"""Resolve a moving reference to data, once."""

import tidegate


@tidegate.component(image="train")
def resolve_data(reference: str) -> str:
    """Return the pin of a dataset reference: what it names at this moment, for ever. Not cached: references move."""
    from tidegate.data import ref

    pin = ref.resolve(reference)
    print(f"{reference} is {pin}")
    return str(pin)
