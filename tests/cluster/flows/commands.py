"""Commands in images without Python: one with a single static program, one with a shell."""

from kfp import dsl

from tests.language.kit import outputs, read

SCRIPT = 'mkdir -p "$(dirname "$2")"; printf "<%s> " "$@" > "$2"; cat "$3" >> "$2"; echo "said"; echo "wrong" >&2'
OUT = outputs(value=str, data=dsl.Dataset, text=str, shell=dsl.Dataset)


@dsl.container_component
def repeat(text: str, times: int, value: dsl.OutputPath(str), data: dsl.Output[dsl.Dataset]):
    return dsl.ContainerSpec(image="static:1", command=["/repeat"], args=[text, times, value, data.path])


@dsl.container_component
def again(text: str, source: dsl.Input[dsl.Dataset], value: dsl.OutputPath(str), data: dsl.Output[dsl.Dataset]):
    words = [dsl.ConcatPlaceholder([text, "-", text]), "1", value, data.path, source.path]
    return dsl.ContainerSpec(image="static:1", command=["/repeat"], args=words)


@dsl.container_component
def shell(text: str, source: dsl.Input[dsl.Dataset], data: dsl.Output[dsl.Dataset], missing: str = None):
    more = dsl.IfPresentPlaceholder(input_name="missing", then=["--missing", missing], else_=["none"])
    words = [text, data.path, source.path, more]
    return dsl.ContainerSpec(
        image="shell:1", command=["sh", "-ec", SCRIPT.replace('"$@"', '"$1" "$4"'), "sh"], args=words
    )


@dsl.container_component
def exits(code: int):
    return dsl.ContainerSpec(image="shell:1", command=["sh", "-c", 'echo "going"; exit "$1"', "sh"], args=[code])


@dsl.pipeline(name="commands")
def commands(text: str = 'it\'s "{{workflow.name}}" 😀') -> OUT:
    first = repeat(text=text, times=3)
    second = again(text=first.outputs["value"], source=first.outputs["data"])
    third = shell(text=text, source=second.outputs["data"])
    read(data=third.outputs["data"])
    return OUT(
        second.outputs["value"],
        second.outputs["data"],
        read(data=first.outputs["data"]).output,
        third.outputs["data"],
    )


@dsl.pipeline(name="exits-badly")
def exits_badly():
    exits(code=7)


FLOWS = [commands, exits_badly]
