"""How the command of one of our components is spelled, for whoever writes it, runs it or recognises it."""

COMMAND = ("python", "-m", "tidegate.author.step")
ERROR_FILE = "error.json"  # beside the executor's output file: why a step failed
REGISTRAR = "TIDEGATE_REGISTRAR"  # an environment variable that a component has which may write the registry
# an environment variable of a component in a script: a module that has ``load(name) -> function``
LOADER = "TIDEGATE_LOADER"
