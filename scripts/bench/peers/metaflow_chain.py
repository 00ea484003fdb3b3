"""Metaflow: flow files as text (Metaflow reads a flow's graph from its source). A process a step."""

_HEAD = """from metaflow import FlowSpec, Parameter, step


class Bench(FlowSpec):
    x = Parameter("x", default=0, type=int)
"""
_TAIL = """

if __name__ == "__main__":
    Bench()
"""


def chain(n: int) -> str:
    """A flow of n steps, ``start`` and ``end`` among them; each adds 1."""
    names = ["start", *(f"add_{i}" for i in range(n - 2)), "end"]
    steps = [_add(name, after) for name, after in zip(names, [*names[1:], ""], strict=True)]
    return _HEAD + "".join(steps) + _TAIL


def _add(name: str, after: str) -> str:
    value = "self.x" if name == "start" else "self.value"
    end = f"self.next(self.{after})" if after else "print(self.value)"
    return f"\n    @step\n    def {name}(self):\n        self.value = {value} + 1\n        {end}\n"


def fan(n: int) -> str:
    """A foreach over n branches that sleep."""
    body = f"""
    @step
    def start(self):
        self.items = list(range({n}))
        self.next(self.nap, foreach="items")

    @step
    def nap(self):
        import time

        time.sleep(0.5)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass
"""
    return _HEAD + body + _TAIL
